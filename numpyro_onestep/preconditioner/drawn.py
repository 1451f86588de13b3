r"""The Gaussian fit from draws.

The fit minimises KL(q || p) by natural gradients. In the coordinates of the
current fit, with `r = grad_z log gamma + z` (zero everywhere at a Gaussian optimum, so the
estimates lose their variance there: the path gradient of Roeder et al., arXiv 1703.09194),

    b = E[r],     A = sym E[r z^T],     precision of the optimum along an eigenvector of A: 1 - A,

and a damped Newton step is taken along every eigenvector. The step does not depend on the units of
the parameters, so neither does the speed of convergence, and `pace` says when it is over.

Where the model has loc-scale sites that can be recentred, their centredness c may be fitted too, by
the gradient of the same lower bound, `E[d/dc log gamma(u; c)]`, in steps of Adam (Gorinova, Moore
and Hoffman, arXiv 1906.03028).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from numpyro_onestep.compilation import compiled
from numpyro_onestep.preconditioner.base import Affine, GaussianFit
from numpyro_onestep.preconditioner.pace import (
    ARRIVED,
    NUM_SETTLED,
    RATE,
    SCALES,
    Pace,
    after,
    begin,
    max_steps,
)
from numpyro_onestep.target import Centredness, Target, centredness_of, recentred

_DRAWS = 64
# Longest move of the mean per step, in standard deviations of the current fit.
_RADIUS = 3.0
# Step of the centredness at first; it falls with the rate of the Newton steps.
_CENTRING_RATE = 0.1


class _State(NamedTuple):
    step: jax.Array
    pace: Pace
    mean: jax.Array
    factor: jax.Array
    log_volume: jax.Array
    centredness: Centredness | None
    moments: Any
    elbo: jax.Array
    spread: jax.Array


@compiled(many_loops=True, static_argnames="dense")
def fit_from_draws(
    target: Target,
    start: jax.Array,
    scale: jax.Array,
    rng_key: jax.Array,
    centring: jax.Array | np.ndarray | float = 0.0,
    *,
    dense: bool = True,
) -> GaussianFit:
    """Fits mean and covariance from `start: (dim,)`.

    Args:
        target: the model.
        start: in its coordinates.
        scale: standard deviations to start with, `(dim,)`.
        rng_key: for the draws.
        centring: 1 to fit the centredness of a recentred target too, from the target's own; 0 to
            leave it.
        dense: whether coordinates may be correlated; without, only scales are fitted.
    """
    first = Affine(start, jnp.diag(scale))
    affine, elbo, spread, centredness, num_steps = _descend(
        target, first, rng_key, centring, dense=dense
    )
    # Any square root of the covariance serves; a triangular one has a cheap inverse.
    upper = jnp.linalg.qr(affine.factor.T, mode="r")
    factor = (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T
    return GaussianFit(Affine(affine.mean, factor), elbo, spread, centredness, num_steps * _DRAWS)


def refined(
    target: Target, affine: Affine, rng_key: jax.Array
) -> tuple[Affine, jax.Array, jax.Array, jax.Array]:
    """Means and scales along the columns of a triangular factor, averaged over many draws.

    Returns:
        The fit, the lower bound by step, `(num_steps,)`, the spread of its log-weights, and the
        number of gradients.
    """
    affine, elbo, spread, _, num_steps = _descend(
        target, affine, rng_key, 0.0, dense=False, refining=True
    )
    return affine, elbo, spread, num_steps * _DRAWS


def _descend(
    target: Target,
    affine: Affine,
    rng_key: jax.Array,
    centring: jax.Array | np.ndarray | float,
    *,
    dense: bool,
    refining: bool = False,
) -> tuple[Affine, jax.Array, jax.Array, Centredness | None, jax.Array]:
    """The fit, its bound by step, its spread, its centredness, and the number of steps.

    Bounds of the steps that it did not need are the mean of the last ones.
    """
    dim, dtype = target.dim, affine.mean.dtype
    half = _DRAWS // 2
    adam = optax.scale_by_adam()

    def log_gamma_at(x: jax.Array, centredness: Centredness | None) -> jax.Array:
        return recentred(target, centredness).log_density(x)

    value_and_grad = jax.vmap(jax.value_and_grad(log_gamma_at, argnums=(0, 1)), (0, None))

    def step(state: _State) -> _State:
        i, pace, mean, factor, log_volume, centredness, moments, elbo, spread = state
        rate = pace.rate
        z = jax.random.normal(jax.random.fold_in(rng_key, i), (half, dim), dtype)
        z = jnp.concatenate([z, -z])
        log_gamma, (gradient, uphill) = value_and_grad(mean + z @ factor.T, centredness)
        r = gradient @ factor + z
        usable = jnp.isfinite(r).all(axis=-1) & jnp.isfinite(log_gamma)
        r = jnp.where(usable[:, None], r, 0.0)
        num_usable = jnp.maximum(usable.sum(), 1)
        b = r.sum(axis=0) / num_usable
        if dense:
            a = (r.T @ z + z.T @ r) / (2 * num_usable)
            a = jnp.where(pace.phase == SCALES, jnp.diag(jnp.diagonal(a)), a)
            eigenvalues, basis = jnp.linalg.eigh(a)
            move, log_scale = _newton(basis.T @ b, 1.0 - eigenvalues, rate)
            gained, move = log_scale.sum(), basis @ move
            mean = mean + factor @ move
            factor = factor @ ((basis * jnp.exp(log_scale)) @ basis.T)
            log_scale = (basis * log_scale) @ basis.T
        else:
            move, log_scale = _newton(b, 1.0 - (r * z).sum(axis=0) / num_usable, rate)
            gained = log_scale.sum()
            mean = mean + factor @ move
            factor = factor * jnp.exp(log_scale)
        if centredness:
            # Not before the fit is roughly where the posterior is.
            length = jnp.where(pace.phase == SCALES, 0.0, centring * _CENTRING_RATE * rate / RATE)
            uphill = jax.tree.map(lambda leaf: _mean_over(usable, leaf), uphill)
            direction, moments = adam.update(uphill, moments)
            centredness = jax.tree.map(
                lambda c, d: jnp.clip(c + length * d, 0.0, 1.0), centredness, direction
            )
        # log gamma - log q without noise where the fit is exact, unlike the two on their own.
        log_w = log_gamma + 0.5 * (z**2).sum(axis=-1) + log_volume
        bound = jnp.where(usable, log_w, 0.0).sum() / num_usable
        variance = jnp.where(usable, (log_w - bound) ** 2, 0.0).sum() / num_usable
        return _State(
            i + 1,
            after(pace, move, log_scale, dense=dense, whole=whole),
            mean,
            factor,
            log_volume + gained,
            centredness,
            moments,
            elbo.at[i].set(bound),
            spread.at[i].set(0.5 * variance),
        )

    own = centredness_of(target)
    # Steps of Adam have one length, near the end and far away: they do not say when it is reached.
    whole = bool(own) & (jnp.asarray(centring) > 0)
    end = jax.lax.while_loop(
        lambda state: state.pace.phase < ARRIVED,
        step,
        _State(
            jnp.zeros((), int),
            begin(affine.mean, dense=dense, refining=refining),
            affine.mean,
            affine.factor,
            affine.log_det + 0.5 * dim * jnp.log(2.0 * jnp.pi),
            own,
            adam.init(own),
            *jnp.zeros((2, max_steps(refining=refining)), dtype),
        ),
    )
    until = jnp.arange(len(end.elbo)) - end.step
    is_last = (until >= -NUM_SETTLED) & (until < 0)
    last, spread = (
        jnp.where(is_last, by_step, 0.0).sum() / NUM_SETTLED for by_step in (end.elbo, end.spread)
    )
    elbo = jnp.where(until < 0, end.elbo, last)
    return Affine(end.mean, end.factor), elbo, spread, end.centredness, end.step


def _mean_over(usable: jax.Array, values: jax.Array) -> jax.Array:
    """Mean of `values: (n, *shape)` over the usable ones, `usable: (n,)`."""
    shape = (-1,) + (1,) * (values.ndim - 1)
    known = jnp.where(usable.reshape(shape), jnp.nan_to_num(values), 0.0)
    return known.sum(axis=0) / jnp.maximum(usable.sum(), 1)


def _newton(b: jax.Array, precision: jax.Array, rate: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves of the mean and changes of the log-scales along independent directions.

    Where the mean has further to go than `_RADIUS` allows, the scale must not shrink yet: a narrow
    posterior far away is reached in strides of the present scale.
    """
    precision = jnp.maximum(precision, 0.0)
    move = rate * b / jnp.maximum(precision, 1.0)
    log_scale = -0.5 * jnp.log((1.0 - rate) + rate * precision)
    log_scale = jnp.where(jnp.abs(move) > _RADIUS, jnp.maximum(log_scale, 0.0), log_scale)
    return jnp.clip(move, -_RADIUS, _RADIUS), log_scale
