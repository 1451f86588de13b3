"""The default method: posterior points by resample-move, and divergences of the one-step map."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import Flow, FlowMap
from numpyro_onestep.networks import GatedResidualNetwork, Params
from numpyro_onestep.objectives import (
    Objective,
    PathJeffreys,
    StateConsistency,
    TargetScoreMatching,
    TrainingBatch,
)
from numpyro_onestep.preconditioner import Density
from numpyro_onestep.training.draws import value_and_score
from numpyro_onestep.training.methods.base import Method
from numpyro_onestep.training.moves import MovedPoints

# Newton steps per block for the preimages of a batch: points that they leave too far off are left
# out.
_NEWTON_STEPS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResampleMove(Method):
    """How the sampler is trained; the defaults are for posteriors of 2 to 100 dimensions.

    Draws are resampled by their exact weights and moved by MCMC; a stack of gated residual blocks
    is fitted to these points and to fresh draws, in the coordinates of a Gaussian fit.

    Attributes:
        width: hidden units per block of the network.
        num_blocks: blocks of the network per step.
    """

    width: int = 64
    num_blocks: int = 3
    learning_rate: float = 4e-3
    target_ess: float = 0.85
    objectives: tuple[tuple[float, Objective], ...] = (
        (1.0, PathJeffreys()),
        (0.1, TargetScoreMatching()),
        (0.1, StateConsistency()),
    )

    @property
    def chunk_width(self) -> int:
        """Hidden units: the Jacobian of a block has two factors of that width."""
        return self.width

    @property
    def gradients_per_update(self) -> int:
        """One per fresh draw; those at the moved points are stored."""
        return self.batch_size

    def flow(self, dim: int) -> FlowMap:
        """Gated residual blocks on the cosine schedule."""
        return FlowMap(GatedResidualNetwork(dim, self.width, self.num_blocks))

    def normal_flow(self, dim: int) -> FlowMap:
        """One unit that does nothing, and no heavier tails than those of the normal."""
        return FlowMap(GatedResidualNetwork(dim, width=1, num_blocks=1, tail=0.0))

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
    ) -> TrainingBatch:
        """Fresh draws with their scores, and moved points with their preimages."""
        # Two calls for all random numbers of the step: each call costs half a second to compile.
        key_normal, key_uniform = jax.random.split(rng_key)
        num, dim, dtype = self.batch_size, flow.dim, density.affine.mean.dtype
        base, noise = jax.random.normal(key_normal, (2, num, dim), dtype)
        which, jitter, uniform = jax.random.uniform(key_uniform, (3, num), dtype)
        blocks = flow.steps(params)
        image = jax.vmap(flows.apply, in_axes=(None, 0))(blocks, base)
        _, image_score = value_and_score(density.target, density.affine, image)
        chosen = (which * len(points.points)).astype(int)

        chosen_points = points.points[chosen]
        preimages, _ = jax.vmap(lambda x: flows.invert(blocks, x, _NEWTON_STEPS))(chosen_points)
        return TrainingBatch(
            base=base,
            image=image,
            image_score=image_score,
            points=chosen_points,
            points_score=points.score[chosen],
            preimages=preimages,
            times=(jnp.arange(num) + jitter) / num,
            noise=noise,
            uniform=uniform,
            teacher=average,
            density=density,
        )
