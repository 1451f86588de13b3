r"""Jeffreys divergence between the one-step draws and the posterior, by path gradients.

Let `q` be the density of `x = T(z)`, `z ~ N(0, I)`. Both directions of the Kullback-Leibler
divergence have a gradient of one form (Roeder et al., arXiv 1703.09194; Vaitl et al., arXiv
2403.15881),

    grad_theta KL(q || p) = -E_{x ~ q} [ (d_theta T(z))^T (grad log p(x) - grad log q(x)) ],
    grad_theta KL(p || q) = -E_{x ~ p} [ (d_theta T(z))^T (grad log p(x) - grad log q(x)) ],

the latter with `z = T^-1(x)`, because KL(p || q) equals the divergence between p pulled back
through T and the base. At the optimum both scores agree at every point, so the estimates have no
variance there, whatever the points.

The first average runs over fresh draws, and over points further out in the base: few draws of a
batch reach the tails of the map, from where the largest weights come. With those the sum is the
gradient of no divergence any more, but vanishes where it did. The second runs over points moved by
MCMC, which keep the fit from dropping what its own draws do not see. Where these follow
`p^a / q^(a - 1)` in place of `p`, the average is the gradient of a divergence of order `a`, but for
a factor; for a = 2 it is that of the variance of the weights. The gradients of the target at the
moved points are computed once and used in every step; only the preimages follow the map.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import FlowMap
from numpyro_onestep.networks import Params
from numpyro_onestep.objectives.base import TrainingBatch


@dataclasses.dataclass(frozen=True)
class PathJeffreys:
    """KL(q || p) + KL(p || q) of the one-step map.

    Attributes:
        max_force: longest difference of scores that counts in full, in units of sqrt(dim); beyond
            it only the direction does. Single points in steep regions must not steer a whole step.
        max_miss: points whose preimage is further off than this (distance in `z`) are left out.
    """

    max_force: float = 5.0
    max_miss: float = 0.1

    def loss(self, flow: FlowMap, params: Params, batch: TrainingBatch) -> jax.Array:
        """Surrogate with the gradient above; its value is not a divergence."""
        blocks = jax.lax.stop_gradient(flow.steps(params))
        num_fresh = len(batch.base) + len(batch.outer)
        z = jnp.concatenate([batch.base, batch.outer, batch.preimages])
        x, score = flows.push_score(blocks, z, -z)
        miss = jnp.linalg.norm(x[num_fresh:] - batch.points, axis=-1)
        found = jnp.concatenate([jnp.ones(num_fresh, bool), miss < self.max_miss])
        share = jnp.where(jnp.arange(len(z)) < num_fresh, 1.0 / num_fresh, 1.0 / len(batch.points))
        target_score = (batch.image_score, batch.outer_score, batch.points_score)
        force = score - jnp.concatenate(target_score)
        force = jax.lax.stop_gradient(self._limited(force) * (found * share)[:, None])
        # What is left out must not overflow: its gradient would be 0 times infinity.
        z = jnp.where(found[:, None], z, 0.0)
        mapped = jax.vmap(flows.apply, in_axes=(None, 0))(flow.steps(params), z)
        return jnp.sum(mapped * force)

    def _limited(self, force: jax.Array) -> jax.Array:
        finite = jnp.isfinite(force).all(axis=-1, keepdims=True)
        force = jnp.where(finite, force, 0.0)
        length = jnp.linalg.norm(force, axis=-1, keepdims=True)
        limit = self.max_force * jnp.sqrt(force.shape[-1])
        return force * jnp.minimum(1.0, limit / jnp.maximum(length, 1e-6))
