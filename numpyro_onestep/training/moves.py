r"""Resample-move: draws become posterior points that the sampler did not propose.

Draws are resampled by their weights and moved by MALA transitions, which leave the posterior
invariant: whatever the sampler lacks, the moves drift towards.

For training, draws are resampled by the squares of their weights. From `q w^2 = p^2 / q`
differences of scores give the gradient of the chi-squared divergence, which is the variance of the
weights: the tail that the sampler is short of, of which the posterior `q w = p` itself has few
points, is in every batch. The squares are cut at sqrt(n) times their mean (Ionides, 2008), so that
a poor sampler still yields many points.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep import flow as flows
from numpyro_onestep.compilation import compiled
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import Target
from numpyro_onestep.training.draws import (
    Draws,
    standard_normal_log_density,
    value_and_score,
)

# Newton steps per block: nothing else is spent on these points, and lost ones count as missed.
_NEWTON_STEPS = 24
# Newton's residual, in units of z, up to which a preimage counts as found.
_MAX_RESIDUAL = 1e-2
# Step sizes, as multiples of the adapted one, that points take in turn: in the neck of a funnel a
# step that suits the bulk is never accepted.
_MOVE_SCALES = (1.0, 1.0, 0.3, 0.1)
# Order of the divergence that the moved points of training stand for.
_POWER = 2.0


class MovedPoints(NamedTuple):
    """Posterior points in the coordinates of the preconditioner, `n` of each.

    Attributes:
        points: `(n, dim)`.
        log_density: of the target there, `(n,)`.
        score: its gradient, `(n, dim)`.
        ancestors: index of the draw that each point started from, `(n,)`.
        acceptance: share of accepted moves of the longest step, `()`.
    """

    points: jax.Array
    log_density: jax.Array
    score: jax.Array
    ancestors: jax.Array
    acceptance: jax.Array


@compiled(many_loops=True)
def move(
    target: Target,
    affine: Affine,
    draws: Draws,
    step_size: jax.Array,
    power: jax.Array,
    max_weight: jax.Array,
    num_moves: jax.Array,
    rng_key: jax.Array,
) -> MovedPoints:
    """Resamples as many points as there are draws and moves each `num_moves` times.

    Args:
        target: the model.
        affine: the preconditioner.
        draws: `n` of them. A score that is not finite is unknown: the first transition finds it.
        step_size: of MALA, the longest; see `_MOVE_SCALES`.
        power: draws are resampled by this power of their weights.
        max_weight: these are cut at this multiple of their mean before; inf to leave them as they
            are, 0 to move every draw without resampling.
        num_moves: transitions per point; not static, so that any number shares one program.
        rng_key: for all of it.
    """
    key_resample, key_moves = jax.random.split(rng_key)
    ancestors = _resample(draws, power, max_weight, jax.random.uniform(key_resample))
    start = (draws.image[ancestors], draws.log_density[ancestors], draws.score[ancestors])
    num, dim = draws.image.shape
    scale = jnp.asarray(_MOVE_SCALES, step_size.dtype)[jnp.arange(num) % len(_MOVE_SCALES)]
    step = (step_size * scale)[:, None]

    def transition(i: jax.Array, carry: tuple) -> tuple:
        z, value, score, accepted = carry
        key_noise, key_accept = jax.random.split(jax.random.fold_in(key_moves, i))
        noise = jax.random.normal(key_noise, z.shape, z.dtype)
        drift = 0.5 * step**2
        unknown = ~jnp.isfinite(score).all(-1)
        proposal = jnp.where(unknown[:, None], z, z + drift * score + step * noise)
        new_value, new_score = value_and_score(target, affine, proposal)
        backward = (z - proposal - drift * new_score) / step
        log_ratio = new_value - value + 0.5 * ((noise**2).sum(-1) - (backward**2).sum(-1))
        # A comparison with NaN is false: points where the density is not finite are never entered.
        accept = jnp.log(jax.random.uniform(key_accept, value.shape, value.dtype)) < log_ratio
        accept = (accept | unknown) & jnp.isfinite(new_value) & jnp.isfinite(new_score).all(-1)
        return (
            jnp.where(accept[:, None], proposal, z),
            jnp.where(accept, new_value, value),
            jnp.where(accept[:, None], new_score, score),
            accepted + (accept & ~unknown),
        )

    state = jax.lax.fori_loop(0, num_moves, transition, (*start, jnp.zeros(num)))
    points, value, score, accepted = state
    acceptance = accepted[:: len(_MOVE_SCALES)].mean() / num_moves
    return MovedPoints(points, value, score, ancestors, acceptance)


@compiled(many_loops=True)
def log_weight_at(
    blocks: Any, points: jax.Array, log_density: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The weight that the sampler would give to points that it did not propose.

    Args:
        blocks: the map.
        points: in the coordinates of the preconditioner, `(n, dim)`.
        log_density: of the target there, `(n,)`.

    Returns:
        `log|w|`, `(n,)`, through the inverse map, and whether Newton's method found it, `(n,)`.
    """
    preimages, residual = jax.vmap(lambda x: flows.invert(blocks, x, _NEWTON_STEPS))(points)
    _, log_det, _ = jax.vmap(flows.apply_with_log_det, in_axes=(None, 0))(blocks, preimages)
    log_weight = log_density + log_det - standard_normal_log_density(preimages)
    return log_weight, residual < _MAX_RESIDUAL


def _resample(
    draws: Draws, power: jax.Array, max_weight: jax.Array, offset: jax.Array
) -> jax.Array:
    """Systematic resampling; folded and non-finite draws have no weight.

    `offset` is uniform on (0, 1), for all ticks together.
    """
    log_weight = draws.log_weight
    usable = jnp.isfinite(log_weight) & (draws.sign > 0) & jnp.isfinite(draws.score).all(-1)
    log_weight = jnp.where(usable, log_weight, -jnp.inf)
    weight = jnp.exp(power * (log_weight - jnp.max(log_weight)))
    weight = jnp.minimum(weight, max_weight * weight.mean())
    num = len(weight)
    edges = jnp.cumsum(weight) / weight.sum()
    ticks = (jnp.arange(num) + offset) / num
    resampled = jnp.clip(jnp.searchsorted(edges, ticks), 0, num - 1)
    return jnp.where(max_weight > 0.0, resampled, jnp.arange(num))


def move_settings(
    step_size: jax.Array | np.ndarray, power: float, max_weight: float, num_moves: int
) -> tuple[np.ndarray, ...]:
    """The settings of `move` in the types that all its callers share: one program for all."""
    step_size = np.asarray(step_size)
    exponent, cut = (np.asarray(value, step_size.dtype) for value in (power, max_weight))
    return step_size, exponent, cut, np.asarray(num_moves, np.int32)


def training_settings(
    step_size: jax.Array | np.ndarray, num_points: int, num_moves: int
) -> tuple[np.ndarray, ...]:
    """The same for the points that a sampler is trained on."""
    return move_settings(step_size, _POWER, math.sqrt(num_points), num_moves)


def adapted_step_size(step_size: np.ndarray, acceptance: float) -> np.ndarray:
    """Moves the step size of MALA, `()`, towards its optimal acceptance, 0.574."""
    return np.asarray(step_size * np.exp(acceptance - 0.574), step_size.dtype)


def initial_step_size(z: jax.Array) -> np.ndarray:
    """Step size `()` of MALA for a standard normal shaped like `z: (dim,)`.

    From the optimal scaling of Roberts and Rosenthal (1998); of the dtype of `z`.
    """
    return np.asarray(1.2 * z.shape[-1] ** (-1.0 / 6.0), z.dtype)
