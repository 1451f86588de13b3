r"""The Gaussian fit from draws.

The fit minimises KL(q || p) by natural gradients. In the coordinates of the
current fit, with `r = grad_z log gamma + z` (zero everywhere at a Gaussian optimum, so the
estimates lose their variance there: the path gradient of Roeder et al., arXiv 1703.09194),

    b = E[r],     A = sym E[r z^T],     precision of the optimum along an eigenvector of A: 1 - A,

and a damped Newton step is taken along every eigenvector. The step does not depend on the units of
the parameters, so neither does the speed of convergence.

Where the model has loc-scale sites that can be recentred, their centredness c may be fitted too, by
the gradient of the same lower bound, `E[d/dc log gamma(u; c)]`, in steps of Adam (Gorinova, Moore
and Hoffman, arXiv 1906.03028).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from numpyro_onestep.compilation import compiled
from numpyro_onestep.preconditioner.base import Affine, GaussianFit
from numpyro_onestep.target import Centredness, Target, centredness_of, recentred

# Means and scales first, correlations next: a few hundred noisy products cannot estimate the
# correlations of scales that still differ by orders of magnitude.
_DIAGONAL_STEPS = 60
_STEPS = 300
_DRAWS = 64
# Last steps, from a fifth of the first rate down: what refines a fit that has its correlations.
_REFINING_STEPS = 100
_RATE = 0.5
_LAST_RATE = 0.02
# Longest move of the mean per step, in standard deviations of the current fit.
_RADIUS = 3.0
# Step of the centredness at first; it falls with the rate of the Newton steps.
_CENTRING_RATE = 0.1


@compiled(static_argnames="dense")
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
    affine, elbo, centredness = _descend(
        target, first, jnp.arange(_STEPS), rng_key, centring, dense=dense
    )
    # Any square root of the covariance serves; a triangular one has a cheap inverse.
    upper = jnp.linalg.qr(affine.factor.T, mode="r")
    factor = (upper * jnp.sign(jnp.diagonal(upper))[:, None]).T
    num_gradients = jnp.asarray(_STEPS * _DRAWS)
    return GaussianFit(Affine(affine.mean, factor), elbo, centredness, num_gradients)


def refined(
    target: Target, affine: Affine, rng_key: jax.Array
) -> tuple[Affine, jax.Array, jax.Array]:
    """Means and scales along the columns of a triangular factor, averaged over many draws.

    Returns:
        The fit, the lower bound by step, `(num_steps,)`, and the number of gradients.
    """
    steps = jnp.arange(_STEPS - _REFINING_STEPS, _STEPS)
    affine, elbo, _ = _descend(target, affine, steps, rng_key, 0.0, dense=False)
    return affine, elbo, jnp.asarray(_REFINING_STEPS * _DRAWS)


def _descend(
    target: Target,
    affine: Affine,
    steps: jax.Array,
    rng_key: jax.Array,
    centring: jax.Array | np.ndarray | float,
    *,
    dense: bool,
) -> tuple[Affine, jax.Array, Centredness | None]:
    """The given ones of the steps `0 .. _STEPS - 1`, whose rate falls."""
    dim, dtype = target.dim, affine.mean.dtype
    half = _DRAWS // 2
    adam = optax.scale_by_adam()

    def log_gamma_at(x: jax.Array, centredness: Centredness | None) -> jax.Array:
        return recentred(target, centredness).log_density(x)

    value_and_grad = jax.vmap(jax.value_and_grad(log_gamma_at, argnums=(0, 1)), (0, None))

    def step(carry: tuple, i: jax.Array) -> tuple[tuple, jax.Array]:
        mean, factor, log_volume, centredness, moments = carry
        rate = _rate(i)
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
            a = jnp.where(i < _DIAGONAL_STEPS, jnp.diag(jnp.diagonal(a)), a)
            eigenvalues, basis = jnp.linalg.eigh(a)
            move, scale = _newton(basis.T @ b, 1.0 - eigenvalues, rate)
            mean = mean + factor @ (basis @ move)
            factor = factor @ ((basis * scale) @ basis.T)
        else:
            move, scale = _newton(b, 1.0 - (r * z).sum(axis=0) / num_usable, rate)
            mean = mean + factor @ move
            factor = factor * scale
        if centredness:
            # Not before the fit is roughly where the posterior is.
            length = jnp.where(i < _DIAGONAL_STEPS, 0.0, centring * _CENTRING_RATE * rate / _RATE)
            uphill = jax.tree.map(lambda leaf: _mean_over(usable, leaf), uphill)
            direction, moments = adam.update(uphill, moments)
            centredness = jax.tree.map(
                lambda c, d: jnp.clip(c + length * d, 0.0, 1.0), centredness, direction
            )
        # log gamma - log q without noise where the fit is exact, unlike the two on their own.
        log_w = log_gamma + 0.5 * (z**2).sum(axis=-1) + log_volume
        bound = jnp.where(usable, log_w, 0.0).sum() / num_usable
        log_volume = log_volume + jnp.log(scale).sum()
        return (mean, factor, log_volume, centredness, moments), bound

    own = centredness_of(target)
    log_volume = affine.log_det + 0.5 * dim * jnp.log(2.0 * jnp.pi)
    first = (affine.mean, affine.factor, log_volume, own, adam.init(own))
    carry, elbo = jax.lax.scan(step, first, steps)
    mean, factor, _, centredness, _ = carry
    return Affine(mean, factor), elbo, centredness


def _mean_over(usable: jax.Array, values: jax.Array) -> jax.Array:
    """Mean of `values: (n, *shape)` over the usable ones, `usable: (n,)`."""
    shape = (-1,) + (1,) * (values.ndim - 1)
    known = jnp.where(usable.reshape(shape), jnp.nan_to_num(values), 0.0)
    return known.sum(axis=0) / jnp.maximum(usable.sum(), 1)


def _rate(i: jax.Array) -> jax.Array:
    """Constant over the first half, then falling quadratically: averages the noise away."""
    remaining = 2.0 * (_STEPS - i) / _STEPS
    return jnp.maximum(_RATE * jnp.minimum(remaining, 1.0) ** 2, _LAST_RATE)


def _newton(b: jax.Array, precision: jax.Array, rate: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves of the mean and factors of the scales along independent directions.

    Where the mean has further to go than `_RADIUS` allows, the scale must not shrink yet: a narrow
    posterior far away is reached in strides of the present scale.
    """
    precision = jnp.maximum(precision, 0.0)
    move = rate * b / jnp.maximum(precision, 1.0)
    scale = ((1.0 - rate) + rate * precision) ** -0.5
    scale = jnp.where(jnp.abs(move) > _RADIUS, jnp.maximum(scale, 1.0), scale)
    return jnp.clip(move, -_RADIUS, _RADIUS), scale
