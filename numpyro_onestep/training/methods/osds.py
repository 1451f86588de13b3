"""One-step diffusion samplers by self-distillation with deterministic flow (OSDS)."""

from __future__ import annotations

import dataclasses

from numpyro_onestep.flow import TraceLogDet
from numpyro_onestep.objectives import (
    Intervals,
    JacobianPenalty,
    Objective,
    PathKL,
    StateConsistency,
    VolumeConsistency,
    WarmUp,
)
from numpyro_onestep.training.methods.diffusion import DiffusionMethod, published_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class OSDS(DiffusionMethod):
    """Path KL with state and volume consistency (arXiv 2512.05251).

    One control network learns the stochastic process by its negative evidence lower bound, and,
    told the size of a step, to cover in one step what a moving average of itself covers in two:
    end point and log-volume. The defaults are sized for two processor cores and work in the
    coordinates of a Gaussian fit, where a Gaussian posterior has nothing left to learn. There end
    points and volumes differ by little, so they weigh more than in the paper, and traces are exact
    in up to 64 dimensions; and paths start a little further out than the base. `OSDS.published()`
    has the paper's settings.

    The teacher's lag adds up: a step follows an average of steps half as long, which follow one of
    a quarter. With the paper's average over 1000 updates the longest of 7 sizes is 7000 updates of
    60,000 behind; here the longest of 4 is 400 of 5500, as the average is over 100.
    """

    objectives: tuple[tuple[float, Objective], ...] = (
        (1.0, PathKL()),
        (800.0, WarmUp(StateConsistency(Intervals(0, 3), by_velocity=False, relative=False), 100)),
        (12.0, WarmUp(VolumeConsistency(Intervals(0, 3), TraceLogDet(64)), 100)),
        (1e-4, WarmUp(JacobianPenalty(Intervals(0, 3)), 100)),
    )
    spread: float = 1.25
    batch_size: int = 128
    num_updates: int = 250
    max_rounds: int = 16
    num_annealing: int = 6
    patience: int = 16

    @classmethod
    def published(cls, *, prior_scale: float = 1.0, learning_rate: float = 1e-3) -> OSDS:
        """The settings of the paper: a budget for a GPU.

        128 Euler-Maruyama steps from the prior N(0, s^2 I), cosine rate of the noise in
        [0.01, 10], 60,000 updates of 1024 paths. The prior's scale and the learning rate are
        chosen per target there.
        """
        consistency = (
            (0.25, WarmUp(StateConsistency(Intervals(0, 6), by_velocity=False, relative=False))),
            (0.0625, WarmUp(VolumeConsistency(Intervals(0, 6)))),
            (2.5e-5, WarmUp(JacobianPenalty(Intervals(0, 6)))),
        )
        return cls(
            objectives=((1.0, PathKL()), *consistency),
            weight_decay=1e-4,
            spread=1.0,
            max_rounds=3000,
            **published_settings(prior_scale, learning_rate),
        )
