r"""The Gaussian fit from Hessians, for dimensions in which draws are too few.

With `x = m + L z` and the lower bound `E[log gamma(m + L z)] + log|L|`, the natural gradient in the
coordinates of the current fit leads towards

    precision C = -E[grad^2 log gamma],    move C^-1 E[grad log gamma]

(Opper and Archambeau, 2009; Khan and Rue, arXiv 2107.04562): for a Gaussian posterior in one step
from one Hessian. Estimates of `C` from scores at `n` draws have rank `n`; a Hessian takes `dim`
products with it, and varies little from draw to draw where a posterior of many dimensions can be
fitted at all. A step takes the share of the way that raises the bound most; steps from many draws
then settle the mean and the scales.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_onestep.preconditioner.base import Affine, GaussianFit
from numpyro_onestep.preconditioner.drawn import refined
from numpyro_onestep.target import Target, centredness_of

_MAX_STEPS = 30
_DRAWS = 64
# Opposite pairs of draws whose Hessians make one estimate: exact up to cubic terms.
_PAIRS = 4
# Shares of the way that are tried, the present fit among them. Short of 1, a direction in which the
# posterior is flat widens by 1 / (1 - share) per step instead of without bound.
_SHARES = (1.0, 0.99, 0.9, 0.5, 0.25, 0.1, 0.03, 0.0)
# The fit ends after two steps in a row that gain less, in nats.
_LEAST_GAIN = 0.01
_PATIENCE = 2
# Columns of a Hessian at a time, for all draws of an estimate: twice the memory of a gradient at
# each of `_DRAWS` draws.
_COLUMNS = 16


class _State(NamedTuple):
    step: jax.Array
    mean: jax.Array
    factor: jax.Array
    elbo: jax.Array
    without_gain: jax.Array


@jax.jit
def fit_from_hessians(
    target: Target, start: jax.Array, scale: jax.Array, rng_key: jax.Array
) -> GaussianFit:
    """Fits mean and covariance from `start: (dim,)` with standard deviations `scale: (dim,)`.

    The centredness stays what it is.
    """
    dim, dtype = target.dim, start.dtype
    constant = 0.5 * dim * jnp.log(2.0 * jnp.pi)

    def log_w(mean: jax.Array, factor: jax.Array, z: jax.Array) -> jax.Array:
        """`log gamma - log q` at the images of `z: (n, dim)`, without noise at a Gaussian."""
        log_gamma = jax.vmap(target.log_density)(mean + z @ factor.T)
        log_volume = jnp.log(jnp.diagonal(factor)).sum()
        return log_gamma + 0.5 * (z**2).sum(axis=-1) + log_volume + constant

    def step(state: _State) -> _State:
        i, mean, factor, elbo, without_gain = state
        z = jax.random.normal(jax.random.fold_in(rng_key, i), (_DRAWS // 2, dim), dtype)
        z = jnp.concatenate([z, -z])
        paired = jnp.concatenate([z[:_PAIRS], -z[:_PAIRS]])

        def score(z: jax.Array) -> jax.Array:
            return jax.grad(lambda z: target.log_density(mean + factor @ z))(z)

        def column(e: jax.Array) -> jax.Array:
            return -jax.vmap(lambda at: jax.jvp(score, (at,), (e,))[1])(paired).mean(axis=0)

        curvature = jax.lax.map(column, jnp.eye(dim, dtype=dtype), batch_size=_COLUMNS)
        curvature = 0.5 * (curvature + curvature.T)
        curvature = jnp.where(jnp.isfinite(curvature), curvature, 0.0)
        uphill = jax.vmap(score)(z)
        usable = jnp.isfinite(uphill).all(axis=-1, keepdims=True)
        uphill = jnp.where(usable, uphill, 0.0).sum(axis=0) / jnp.maximum(usable.sum(), 1)

        def towards(share: jax.Array) -> tuple[jax.Array, jax.Array]:
            precision = (1.0 - share) * jnp.eye(dim, dtype=dtype) + share * curvature
            # From the last coordinate to the first: the inverse is lower triangular then.
            root = jnp.linalg.cholesky(precision[::-1, ::-1])
            inverse = jax.scipy.linalg.solve_triangular(
                root, jnp.eye(dim, dtype=dtype), lower=True, trans=1
            )[::-1, ::-1]
            move = share * (inverse @ (inverse.T @ uphill))
            return mean + factor @ move, factor @ inverse

        def bound(share: jax.Array) -> jax.Array:
            # A precision that is not positive has no root; nor may single draws be out of bounds.
            value = log_w(*towards(share), z).mean()
            return jnp.where(jnp.isfinite(value), value, -jnp.inf)

        shares = jnp.array(_SHARES, dtype)
        bounds = jax.lax.map(bound, shares)
        best = jnp.argmax(bounds)
        new_mean, new_factor = towards(shares[best])
        taken = bounds[best] > -jnp.inf
        mean = jnp.where(taken, new_mean, mean)
        factor = jnp.where(taken, new_factor, factor)
        gains = bounds[best] - bounds[-1] > _LEAST_GAIN
        return _State(
            i + 1,
            mean,
            factor,
            jnp.where(jnp.arange(_MAX_STEPS) < i, elbo, bounds[best]),
            jnp.where(gains, 0, without_gain + 1),
        )

    def goes_on(state: _State) -> jax.Array:
        return (state.step < _MAX_STEPS) & (state.without_gain < _PATIENCE)

    zero = jnp.zeros((), int)
    first = _State(zero, start, jnp.diag(scale), jnp.zeros(_MAX_STEPS, dtype), zero)
    end = jax.lax.while_loop(goes_on, step, first)

    # Hessians of a few draws are noisy where the curvature varies from draw to draw.
    affine, refining, spread, num_refining = refined(
        target, Affine(end.mean, end.factor), jax.random.fold_in(rng_key, _MAX_STEPS)
    )
    per_step = 4 * _PAIRS * dim + _DRAWS * (1 + len(_SHARES))
    return GaussianFit(
        affine,
        jnp.concatenate([end.elbo, refining]),
        spread,
        centredness_of(target),
        end.step * per_step + num_refining,
    )
