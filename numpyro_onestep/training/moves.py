r"""Resample-move: draws become posterior points that the sampler did not propose.

Draws are resampled by their truncated weights (w <= sqrt(n) mean w; Ionides, 2008) and moved by MALA
transitions, which leave the posterior invariant: whatever the sampler lacks, the moves drift towards.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_onestep import flow as flows
from numpyro_onestep.networks import Blocks
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import Target
from numpyro_onestep.training.draws import (
    Draws,
    standard_normal_log_density,
    value_and_score,
)

# Newton's residual, in units of z, up to which a preimage counts as found.
_MAX_RESIDUAL = 1e-2


class MovedPoints(NamedTuple):
    """Posterior points in the coordinates of the preconditioner, `n` of each.

    Attributes:
        points: `(n, dim)`.
        score: gradient of the target's log-density, `(n, dim)`.
        preimages: under the map that proposed them, `(n, dim)`.
        usable: whether the preimage was found, `(n,)`.
        log_weight: `log|w|` of the map at the points, `(n,)`; NaN without preimage.
        ancestors: index of the draw that each point started from, `(n,)`.
        acceptance: share of accepted moves, `()`.
    """

    points: jax.Array
    score: jax.Array
    preimages: jax.Array
    usable: jax.Array
    log_weight: jax.Array
    ancestors: jax.Array
    acceptance: jax.Array


@functools.partial(jax.jit, static_argnames="num_moves")
def move(
    target: Target,
    affine: Affine,
    blocks: Blocks,
    draws: Draws,
    step_size: jax.Array,
    rng_key: jax.Array,
    num_moves: int,
) -> MovedPoints:
    """Resamples as many points as there are draws and moves each `num_moves` times."""
    key_uniform, key_noise = jax.random.split(rng_key)
    num = len(draws.image)
    uniforms = jax.random.uniform(key_uniform, (num_moves + 1, num), draws.image.dtype)
    ancestors = _resample(draws, uniforms[-1, 0])
    start = (draws.image[ancestors], draws.log_density[ancestors], draws.score[ancestors])

    def transition(state: tuple, random: tuple) -> tuple[tuple, jax.Array]:
        z, value, score = state
        key, uniform = random
        noise = jax.random.normal(key, z.shape, z.dtype)
        drift = 0.5 * step_size**2
        proposal = z + drift * score + step_size * noise
        new_value, new_score = value_and_score(target, affine, proposal)
        backward = (z - proposal - drift * new_score) / step_size
        log_ratio = new_value - value + 0.5 * ((noise**2).sum(-1) - (backward**2).sum(-1))
        # A comparison with NaN is false: points where the density is not finite are never entered.
        accept = (jnp.log(uniform) < log_ratio) & jnp.isfinite(new_score).all(-1)
        state = (
            jnp.where(accept[:, None], proposal, z),
            jnp.where(accept, new_value, value),
            jnp.where(accept[:, None], new_score, score),
        )
        return state, accept.mean()

    random = (jax.random.split(key_noise, num_moves), uniforms[:-1])
    state, accepted = jax.lax.scan(transition, start, random)
    points, value, score = state
    preimages, residual = jax.vmap(flows.invert, in_axes=(None, 0))(blocks, points)
    usable = residual < _MAX_RESIDUAL
    _, log_det, _ = jax.vmap(flows.apply_with_log_det, in_axes=(None, 0))(blocks, preimages)
    log_weight = value + log_det - standard_normal_log_density(preimages)
    log_weight = jnp.where(usable, log_weight, jnp.nan)
    return MovedPoints(points, score, preimages, usable, log_weight, ancestors, accepted.mean())


def _resample(draws: Draws, offset: jax.Array) -> jax.Array:
    """Systematic resampling by truncated weights; folded and non-finite draws have none.

    `offset` is uniform on (0, 1), for all ticks together.
    """
    log_weight = draws.log_weight
    usable = jnp.isfinite(log_weight) & (draws.sign > 0) & jnp.isfinite(draws.score).all(-1)
    log_weight = jnp.where(usable, log_weight, -jnp.inf)
    weight = jnp.exp(log_weight - jnp.max(log_weight))
    num = len(weight)
    weight = jnp.minimum(weight, jnp.sqrt(num) * weight.mean())
    edges = jnp.cumsum(weight) / weight.sum()
    ticks = (jnp.arange(num) + offset) / num
    return jnp.clip(jnp.searchsorted(edges, ticks), 0, num - 1)


def adapted_step_size(step_size: jax.Array, acceptance: jax.Array) -> jax.Array:
    """Moves the step size of MALA towards its optimal acceptance, 0.574."""
    return step_size * jnp.exp(acceptance - 0.574)


def initial_step_size(z: jax.Array) -> jax.Array:
    """Step size of MALA for a standard normal shaped like `z: (dim,)`.

    From the optimal scaling of Roberts and Rosenthal (1998); of the dtype of `z`.
    """
    return jnp.asarray(1.2 * z.shape[-1] ** (-1.0 / 6.0), z.dtype)
