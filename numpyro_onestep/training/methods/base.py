"""What every method of training has: one contract, one trainer.

A method says which flow it trains, in which coordinates, on what batches, down which objectives,
and how long. The trainer (`training.loop`) is the same for all of them; a new method is one file
here with its own flow and batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from numpyro_onestep.flow import Flow
from numpyro_onestep.networks import Params
from numpyro_onestep.objectives import Objective
from numpyro_onestep.preconditioner import Affine, Density
from numpyro_onestep.training.moves import MovedPoints


def finite_only(steps: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same steps without those of gradients that are not finite, however many there are.

    The sampler is judged by its draws anyway.
    """
    return optax.apply_if_finite(steps, max_consecutive_errors=int(np.iinfo(np.int32).max))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """The budget that all methods share, and what each must say.

    Attributes:
        objectives: pairs of a weight and an objective, added up.
        num_starts: Gaussian fits of the exploration at the least; the best fit of each mode is
            used, the others bear witness of regions that the sampler might miss.
        max_modes: separate modes that get a sampler each; where there are more, there is one
            sampler, for the best of them, and the verdict says so.
        num_points: draws per round, each moved by MCMC.
        num_moves: MALA transitions per point and round.
        num_buffered: rounds whose points are kept for training.
        num_updates: optimiser steps per round.
        batch_size: draws per optimiser step, and moved points where the method uses them.
        learning_rate: of Adam.
        max_gradient_norm: longest gradient that counts in full.
        num_annealing: last rounds, over which the learning rate falls to a thousandth of itself;
            0 for a constant rate.
        ema: decay of the moving average of the parameters, which is the sampler in use.
        max_rounds: rounds before the last ones at the most.
        target_ess: share of effective draws (0 to 1) from which on training ends.
        reuse_ess: share of effective draws (0 to 1) from which on a refit keeps the old sampler.
        patience: rounds after which training ends that brought no gain in that share, nor in the
            affinity of draws and posterior.
    """

    objectives: tuple[tuple[float, Objective], ...] = ()
    num_starts: int = 8
    max_modes: int = 64
    num_points: int = 2000
    num_moves: int = 5
    num_buffered: int = 3
    num_updates: int = 200
    batch_size: int = 64
    learning_rate: float = 2e-3
    max_gradient_norm: float = 5.0
    num_annealing: int = 3
    ema: float = 0.99
    max_rounds: int = 24
    target_ess: float = 0.95
    reuse_ess: float = 0.95
    patience: int = 3

    def __post_init__(self) -> None:
        """Refuses sizes and shares that make no sense."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "num_annealing" else 1
            if field.type == "int" and (
                isinstance(value, bool) or not isinstance(value, int) or value < least
            ):
                kind = "positive" if least else "non-negative"
                raise ValueError(f"expected {field.name} to be a {kind} int; got {value!r}")
        for name in ("target_ess", "reuse_ess"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"expected {name} in (0, 1]; got {getattr(self, name)!r}")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"expected ema in [0, 1); got {self.ema!r}")
        for name in ("learning_rate", "max_gradient_norm"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"expected a positive {name}; got {getattr(self, name)!r}")

    @property
    def chunk_width(self) -> int:
        """Values per coordinate that the Jacobian of one draw takes up."""
        raise NotImplementedError

    @property
    def gradients_per_update(self) -> int:
        """Gradients of the target per optimiser step."""
        raise NotImplementedError

    @property
    def num_sampling_steps(self) -> int:
        """Steps per draw, unless the user asks for another number."""
        return 1

    def flow(self, dim: int) -> Flow:
        """The flow to train, for points `(dim,)`."""
        raise NotImplementedError

    def preconditioner(self, fit: Affine) -> Affine:
        """The coordinates to work in; `fit` is the best Gaussian fit to the posterior."""
        return fit

    def batch(
        self,
        density: Density,
        flow: Flow,
        params: Params,
        average: Params,
        points: MovedPoints,
        teacher: Any,
        update: jax.Array,
        rng_key: jax.Array,
        outer_factors: jax.Array | None = None,
    ) -> Any:
        """What one optimiser step sees; traced.

        Args:
            density: the target in the coordinates of the preconditioner.
            flow: what `flow` gave.
            params: its parameters now.
            average: their moving average.
            points: posterior points of the last rounds.
            teacher: the trained sampler of the method's `teacher`, if it has one.
            update: optimiser steps before this one, `()`.
            rng_key: for this step.
            outer_factors: where outer points lie, `(2, dim, dim)`, see `training.outer`; None where
                the method asks for none.
        """
        raise NotImplementedError

    def num_outer(self, dim: int) -> int:
        """How many points of a batch are further out than draws of the base; even."""
        return 0

    @property
    def recentres(self) -> bool:
        """Whether loc-scale sites may be worked with in other coordinates than the user's."""
        return True

    def normal_flow(self, dim: int) -> Flow | None:
        """A flow whose untrained map moves nothing, for normal posteriors; None to train anyway.

        The smaller the better: drawing and checking take their time by the size of the map.
        """
        return None

    def num_ridges(self, dim: int) -> int:
        """Directions along which the coordinates may be bent before any training; 0 for none."""
        return 0

    def num_start_batches(self, dim: int) -> int:
        """Rounds' worth of draws of the Gaussian fit that `starts` looks at; 0 for no starts."""
        return 0

    def starts(self, params: Params, base: np.ndarray, score: np.ndarray) -> Sequence[Params]:
        """Parameters to start from in place of the untrained ones, if they serve better.

        Args:
            params: the untrained parameters.
            base: draws from N(0, I), `(num_batches, n, dim)`.
            score: of the target there, in the coordinates of the fit, `(num_batches, n, dim)`.
        """
        return ()

    @property
    def num_rounds(self) -> int:
        """Rounds at the most, those of the teacher included."""
        teacher = self.teacher.num_rounds if self.teacher else 0
        return self.max_rounds + self.num_annealing + teacher

    @property
    def teacher(self) -> Method | None:
        """A method whose sampler is trained first, in the same coordinates."""
        return None

    def optimiser(self) -> optax.GradientTransformation:
        """Direction of a step; the trainer applies the learning rate."""
        steps = optax.chain(
            optax.clip_by_global_norm(self.max_gradient_norm), optax.scale_by_adam(b2=0.99)
        )
        # As one vector: every array of its own is compiled.
        return optax.flatten(finite_only(steps))
