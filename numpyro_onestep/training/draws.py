r"""Draws of the one-step (or few-step) sampler with their exact log-weights.

log w = log gamma(m + L T(z)) + log|L| + log|det dT/dz| - log N(z; 0, I)
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep import flow as flows
from numpyro_onestep.compilation import compiled
from numpyro_onestep.preconditioner import Affine, log_density
from numpyro_onestep.target import Target, in_batches, over_points


class Draws(NamedTuple):
    """Draws with everything that their weights are made of, `n` of each.

    Attributes:
        base: draws from N(0, I), `(n, base_dim)`; more than `dim` for a stochastic map.
        image: where the map takes them, in the coordinates of the preconditioner, `(n, dim)`.
        log_density: of the target in those coordinates, `(n,)`.
        score: its gradient, `(n, dim)`.
        log_det: `log|det dT/dz|`, `(n,)`.
        sign: sign of that determinant, `(n,)`.
    """

    base: jax.Array
    image: jax.Array
    log_density: jax.Array
    score: jax.Array
    log_det: jax.Array
    sign: jax.Array

    @property
    def log_base(self) -> jax.Array:
        """Log-density of the base draws, `(n,)`."""
        return standard_normal_log_density(self.base)

    @property
    def log_weight(self) -> jax.Array:
        """`log|w|`, `(n,)`."""
        return _log_weight(self)


@jax.jit
def _log_weight(draws: Draws) -> jax.Array:
    return draws.log_density + draws.log_det - draws.log_base


@jax.jit
def standard_normal_log_density(z: jax.Array) -> jax.Array:
    """`(..., dim) -> (...)`."""
    return -0.5 * (z**2).sum(axis=-1) - 0.5 * z.shape[-1] * jnp.log(2.0 * jnp.pi)


@compiled(many_loops=True, static_argnames="num")
def draw(target: Target, affine: Affine, blocks: Any, rng_key: jax.Array, num: int) -> Draws:
    """`num` independent draws; one compiled program per number of draws and of steps."""
    base = jax.random.normal(rng_key, (num, flows.base_dim(blocks)), affine.mean.dtype)
    one = functools.partial(flows.apply_with_log_det, blocks)
    image, log_det, sign = in_batches(one, base, flows.jacobian_size(blocks))
    value, score = value_and_score(target, affine, image)
    return Draws(base, image, value, score, log_det, sign)


def value_and_score(target: Target, affine: Affine, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-density `(n,)` of the target and its gradient `(n, dim)` at `z: (n, dim)`."""
    one = jax.value_and_grad(functools.partial(log_density, target, affine))
    return over_points(one, target, z)


def ess_and_evidence(draws: Draws) -> tuple[float, float]:
    """Share of effective draws and log evidence; 0 and minus infinity where no weight is known."""
    log_weight = np.asarray(draws.log_weight, float)
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    top = log_weight.max()
    if not np.isfinite(top):
        return 0.0, -math.inf
    # A determinant that is not known has no sign either.
    weight = np.exp(log_weight - top) * np.nan_to_num(np.asarray(draws.sign, float))
    ess_fraction = max(weight.sum(), 0.0) ** 2 / max((weight**2).sum(), 1e-300) / len(weight)
    return float(ess_fraction), float(top + np.log(max(weight.mean(), 1e-300)))


def affinity(draws: Draws) -> float:
    """Squared Bhattacharyya coefficient of draws and target, in [0, 1]: `E[sqrt w]^2 / E[w]`.

    Unlike the share of effective draws, it tells poor maps apart: no single weight decides.
    """
    log_weight = np.asarray(draws.log_weight, float)
    usable = np.isfinite(log_weight) & (np.asarray(draws.sign) > 0)
    if not usable.any():
        return 0.0
    weight = np.exp(np.where(usable, log_weight, -np.inf) - log_weight[usable].max())
    return float(np.sqrt(weight).mean() ** 2 / weight.mean())
