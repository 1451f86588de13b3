r"""Target-score matching: the velocity at `d = 0` learned from posterior points.

For a posterior point `z` with residual gradient `g = grad log p(z) + z`, noised to
`z_t = alpha z + sigma eps`, two regression targets have the conditional mean `z_t + score_t(z_t)`:

    alpha g                       (target-score identity, De Bortoli et al., arXiv 2402.08667)
    z_t - eps / sigma             (denoising score matching)

With `v` the mean square of `g`, their variances stand roughly as `v sigma^4 : 1`, and the loss
combines them by inverse variance. The first is exact for a Gaussian posterior.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from numpyro_onestep.flow import Flow
from numpyro_onestep.networks import Params
from numpyro_onestep.objectives.base import TrainingBatch


@dataclasses.dataclass(frozen=True)
class TargetScoreMatching:
    """Mean squared error of the velocity on noised posterior points.

    Attributes:
        max_residual: component-wise limit on `g`; the tails of a posterior can have any slope.
    """

    max_residual: float = 10.0

    def loss(self, flow: Flow, params: Params, batch: TrainingBatch) -> jax.Array:
        """Half the squared error, summed over dimensions, averaged over points."""
        t = batch.times
        z_t = batch.states(flow, t)
        alpha, sigma = (f(t)[:, None] for f in (flow.schedule.alpha, flow.schedule.sigma))
        g = jnp.clip(batch.points_score + batch.points, -self.max_residual, self.max_residual)
        g = jnp.nan_to_num(g)
        weight = 1.0 / (1.0 + jnp.mean(g**2) * sigma**4)
        denoising = z_t - batch.noise / jnp.maximum(sigma, 1e-2)
        wanted = weight * alpha * g + (1.0 - weight) * denoising
        velocity = jax.vmap(flow.velocity, in_axes=(None, 0, 0, None))(
            params, z_t, t, batch.density
        )
        return 0.5 * batch.mean(jnp.sum((velocity - wanted) ** 2, axis=-1))
