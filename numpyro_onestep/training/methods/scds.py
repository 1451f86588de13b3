"""Self-consistent diffusion samplers (SCDS)."""

from __future__ import annotations

import dataclasses

import jax

from numpyro_onestep.networks import Params
from numpyro_onestep.objectives import (
    Intervals,
    Objective,
    PathLogVariance,
    StateConsistency,
    WarmUp,
)
from numpyro_onestep.training.methods.diffusion import DiffusionMethod, published_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class SCDS(DiffusionMethod):
    """Path log-variance with self-consistency (arXiv 2502.07579).

    One network from scratch, as in `OSDS`, but with the log-variance as its path objective, its
    own current parameters (held constant) as teacher, and nothing said about volumes. The paper
    has no weights for the one-step sampler; the exact ones hold for it as for any other.
    """

    objectives: tuple[tuple[float, Objective], ...] = (
        (0.2, PathLogVariance(max_deviation=20.0)),
        (30.0, WarmUp(StateConsistency(Intervals(0, 3), by_velocity=False, relative=False), 500)),
    )
    batch_size: int = 128
    num_updates: int = 250
    max_rounds: int = 16
    num_annealing: int = 6
    ema: float = 0.998

    def path_teacher(self, params: Params, average: Params) -> Params:
        """The current parameters."""
        return jax.lax.stop_gradient(params)

    @classmethod
    def published(cls, *, prior_scale: float = 1.0, learning_rate: float = 1e-3) -> SCDS:
        """The path and the network of the paper: a budget for a GPU.

        Where the paper gives no number, that of `OSDS.published` stands.
        """
        state = StateConsistency(Intervals(0, 6), by_velocity=False, relative=False)
        return cls(
            objectives=((1.0, PathLogVariance()), (1.0, state)),
            max_rounds=3000,
            **published_settings(prior_scale, learning_rate),
        )
