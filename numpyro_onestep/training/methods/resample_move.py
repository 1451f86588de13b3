"""The default method: posterior points by resample-move, and divergences of the one-step map."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

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
from numpyro_onestep.training.methods.base import Method, finite_only
from numpyro_onestep.training.moves import MovedPoints
from numpyro_onestep.training.packing import Packed, packed
from numpyro_onestep.training.skewness import SHARES, find_ridges

# Newton steps per block for the preimages of a batch: points that are too far off without are left
# out.
_NEWTON_STEPS = 0
# In fewer dimensions outer points would be where no draw ever is, at the expense of the bulk.
_MIN_OUTER_DIM = 3
# Root mean square of a step in a matrix, where that of Adam is about one; and the least number of
# singular directions for which it is taken.
_MATRIX_RATE = 0.6
_MIN_DIRECTIONS = 16
# Dimensions beyond which narrow blocks are faster than wide ones.
_MAX_WIDE_DIM = 48
# Where training starts with the skewness of the posterior, and in how many rounds' worth of draws
# it is looked for. In more dimensions coordinates are bent, along how many directions at the most.
_MIN_SKEWED_DIM, _MAX_SKEWED_DIM = 16, 128
_MAX_RIDGES = 512
_START_BATCHES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResampleMove(Method):
    """How the sampler is trained; the defaults are for posteriors of 2 to 100 dimensions.

    Draws are resampled by their exact weights and moved by MCMC; a stack of gated residual blocks
    is fitted to these points and to fresh draws, in the coordinates of a Gaussian fit.

    Attributes:
        width: hidden units per block of the network; in more than 48 dimensions, where inverses of
            that size take most of the time, blocks are half as wide and twice as many.
        num_blocks: blocks of the network per step.
    """

    width: int = 64
    num_blocks: int = 3
    learning_rate: float = 4e-3
    target_ess: float = 0.8
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
        split = dim > _MAX_WIDE_DIM and self.width % 2 == 0
        width, num_blocks = (
            (self.width // 2, 2 * self.num_blocks) if split else (self.width, self.num_blocks)
        )
        return FlowMap(GatedResidualNetwork(dim, width, num_blocks))

    def normal_flow(self, dim: int) -> FlowMap:
        """One unit that does nothing, and no heavier tails than those of the normal."""
        return FlowMap(GatedResidualNetwork(dim, width=1, num_blocks=1, tail=0.0))

    def num_start_batches(self, dim: int) -> int:
        """None where a round of training costs less than a look, or the tensor is too big."""
        network = self.flow(dim).network
        can_bend = isinstance(network, GatedResidualNetwork) and network.num_ridges > 0
        return _START_BATCHES if can_bend and _MIN_SKEWED_DIM <= dim <= _MAX_SKEWED_DIM else 0

    def num_ridges(self, dim: int) -> int:
        """As many as dimensions, where the network has too few units for them."""
        return min(dim, _MAX_RIDGES) if dim > _MAX_SKEWED_DIM else 0

    def num_outer(self, dim: int) -> int:
        """Half of the fresh draws."""
        return 2 * (self.batch_size // 4) if dim >= _MIN_OUTER_DIM else 0

    def starts(self, params: Params, base: np.ndarray, score: np.ndarray) -> list[Params]:
        """Maps that have the skewness of the posterior, to first order, or a part of it."""
        dim = base.shape[-1]
        network = self.flow(dim).network
        base, score = base.reshape(-1, dim), score.reshape(-1, dim)
        found, weights = find_ridges(base, score, network.num_ridges)
        return [network.bent(params, found, share * weights / 6.0) for share in SHARES]

    def optimiser(self) -> optax.GradientTransformation:
        """Muon for matrices of many rows and columns, Adam for the rest.

        Steps of equal length along all singular directions of a matrix (Jordan et al., 2024; Liu et
        al., arXiv 2502.16982) reach the same share of effective draws in half of the rounds. Where
        directions are few, they are mostly noise.
        """
        stack = optax.contrib.MuonDimensionNumbers(reduction_axis=2, output_axis=1)

        def kinds(params: Packed) -> Packed:
            return Packed(tuple(stack for _ in params.matrices), None)

        muon = optax.contrib.muon(
            _MATRIX_RATE,
            beta=0.9,
            adam_b2=0.99,
            adam_learning_rate=1.0,
            muon_weight_dimension_numbers=kinds,
            consistent_rms=1.0,
        )
        # The trainer descends.
        steps = optax.chain(
            optax.clip_by_global_norm(self.max_gradient_norm), muon, optax.scale(-1.0)
        )
        return packed(finite_only(steps), min_directions=_MIN_DIRECTIONS)

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
    ) -> TrainingBatch:
        """Fresh draws with their scores, half of them further out, and moved points with theirs."""
        # Two calls for all random numbers of the step: each call costs half a second to compile.
        key_normal, key_uniform = jax.random.split(rng_key)
        num, dim, dtype = self.batch_size, flow.dim, density.affine.mean.dtype
        base, noise = jax.random.normal(key_normal, (2, num, dim), dtype)
        which, jitter, uniform = jax.random.uniform(key_uniform, (3, num), dtype)
        inner = num - self.num_outer(dim)
        if outer_factors is not None:
            halves = base[inner:].reshape(len(outer_factors), -1, dim) @ outer_factors
            base = base.at[inner:].set(halves.reshape(-1, dim))
        blocks = flow.steps(params)
        image = jax.vmap(flows.apply, in_axes=(None, 0))(blocks, base)
        _, score = value_and_score(density.target, density.affine, image)
        chosen = (which * len(points.points)).astype(int)

        chosen_points = points.points[chosen]
        preimages, _ = jax.vmap(lambda x: flows.invert(blocks, x, _NEWTON_STEPS))(chosen_points)
        return TrainingBatch(
            base=base[:inner],
            image=image[:inner],
            image_score=score[:inner],
            outer=base[inner:],
            outer_score=score[inner:],
            points=chosen_points,
            points_score=points.score[chosen],
            preimages=preimages,
            times=(jnp.arange(num) + jitter) / num,
            noise=noise,
            uniform=uniform,
            teacher=average,
            density=density,
        )
