r"""Distributions anywhere between their centred and their non-centred form.

A value `theta = loc + scale * e` has in

    u = c loc + scale^(c - 1) (theta - loc),    0 <= c <= 1,

its own coordinates at c = 1 and those of `e` at c = 0 (Gorinova, Moore and Hoffman,
arXiv 1906.03028; NumPyro's `LocScaleReparam`).

For a multivariate normal, `theta = loc + scale * (R e)` with R the root of its correlations and
`e ~ N(0, I)`, there is a root `R_c = (1 - c) I + c R` between I and R as well:

    u = c loc + scale^c R_c R^-1 (theta - loc) / scale    with the prior    c loc + scale^c R_c e.

R is shared by a batch where the distribution shares it, and so is then the mean of c in R_c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import AffineTransform


class Centring(NamedTuple):
    """A distribution in the coordinates of one centredness.

    Attributes:
        auxiliary: the distribution of u.
        value: theta as a function of u.
        coordinates: u as a function of theta.
        log_det: of `log|det dtheta/du|`, summed over all elements, `()`.
    """

    auxiliary: Any
    value: Callable[[jax.Array], jax.Array]
    coordinates: Callable[[jax.Array], jax.Array]
    log_det: jax.Array


class _Family(NamedTuple):
    """What is known of a family.

    Attributes:
        parameters: names of those that may depend on other sites.
        centring: of a member, at `c` of the shape of its values.
    """

    parameters: tuple[str, ...]
    centring: Callable[[Any, jax.Array], Centring]


# Supports that no parameter enters.
_SUPPORTS = (
    constraints.real,
    constraints.positive,
    constraints.unit_interval,
    constraints.real_vector,
)


def can_be_centred(fn: Any) -> bool:
    """Whether a distribution is of a family that is known here."""
    fn = bare_distribution(fn)
    if not any(fn.support is support for support in _SUPPORTS):
        return False
    if isinstance(fn, dist.TransformedDistribution):
        # Where unconstrained coordinates are those of the base distribution, as in a log-normal.
        bijection = type(biject_to(fn.support))
        if [type(transform) for transform in fn.transforms] != [bijection]:
            return False
    return type(_unconstrained(fn)) in _FAMILIES


def moving_parameters(fn: Any) -> tuple[Any, ...]:
    """Parameters of such a distribution that make it wider, or move it."""
    fn = _unconstrained(fn)
    return tuple(getattr(fn, name) for name in _FAMILIES[type(fn)].parameters)


def centring(fn: Any, c: jax.Array) -> Centring:
    """Such a distribution in unconstrained coordinates, at `c` of the shape of its values."""
    fn = _unconstrained(fn)
    return _FAMILIES[type(fn)].centring(fn, c)


def bare_distribution(fn: Any) -> Any:
    """A distribution without its event dimensions and expansions."""
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn


def _unconstrained(fn: Any) -> Any:
    """The same of its values in unconstrained coordinates."""
    fn = bare_distribution(fn)
    if isinstance(fn, dist.TransformedDistribution):
        fn = bare_distribution(fn.base_dist)
    return fn


def _of_loc_and_scale(*shape_parameters: str) -> _Family:
    """A family of the real line, with the names of its other parameters."""

    def of(fn: Any, c: jax.Array) -> Centring:
        loc, scale = fn.loc, fn.scale
        others = {name: getattr(fn, name) for name in shape_parameters}
        return Centring(
            type(fn)(loc=c * loc, scale=scale**c, **others),
            lambda u: loc + scale ** (1.0 - c) * (u - c * loc),
            lambda theta: c * loc + scale ** (c - 1.0) * (theta - loc),
            jnp.sum((1.0 - c) * jnp.log(scale)),
        )

    return _Family(("loc", "scale"), of)


def _multivariate_normal(fn: Any, c: jax.Array) -> Centring:
    loc, scale_tril = fn.loc, fn.scale_tril
    scale = jnp.linalg.norm(scale_tril, axis=-1)
    root = scale_tril / scale[..., None]
    shared = _mean_over_batch(c, root.shape[:-1])
    identity = jnp.eye(root.shape[-1], dtype=root.dtype)
    between = (1.0 - shared)[..., None] * identity + shared[..., None] * root
    log_det = (1.0 - c) * jnp.log(scale) + _log_diagonal(root) - _log_diagonal(between)
    standard = dist.MultivariateNormal(jnp.zeros_like(identity[0]), scale_tril=between)
    return Centring(
        dist.TransformedDistribution(standard, AffineTransform(c * loc, scale**c)),
        lambda u: loc + scale * _times(root, _solved(between, scale**-c * (u - c * loc))),
        lambda theta: c * loc + scale**c * _times(between, _solved(root, (theta - loc) / scale)),
        log_det.sum(),
    )


def _random_walk(fn: Any, c: jax.Array) -> Centring:
    # One c per walk: with one per step, a sum over all earlier ones would lead to the values.
    scale = jnp.asarray(fn.scale)
    shared = c.mean(-1)
    stretch = scale ** (1.0 - shared)
    return Centring(
        dist.GaussianRandomWalk(scale**shared, fn.num_steps),
        lambda u: stretch[..., None] * u,
        lambda theta: theta / stretch[..., None],
        jnp.sum(jnp.broadcast_to(jnp.log(stretch)[..., None], c.shape)),
    )


def _mean_over_batch(c: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The mean of `c` over those leading axes that an array of this shape would repeat."""
    c = c.mean(tuple(range(c.ndim - len(shape))))
    repeated = tuple(i for i, size in enumerate(shape[:-1]) if size == 1)
    return c.mean(repeated, keepdims=True)


def _log_diagonal(matrix: jax.Array) -> jax.Array:
    return jnp.log(jnp.diagonal(matrix, axis1=-2, axis2=-1))


def _times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.einsum("...ij,...j->...i", matrix, vector)


def _solved(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """Of lower-triangular equations, one matrix for all vectors where it is shared."""
    if matrix.ndim == 2:
        flat = vector.reshape(-1, vector.shape[-1])
        return solve_triangular(matrix, flat.T, lower=True).T.reshape(vector.shape)
    shape = jnp.broadcast_shapes(matrix.shape[:-1], vector.shape)
    matrix = jnp.broadcast_to(matrix, (*shape, shape[-1]))
    return solve_triangular(matrix, jnp.broadcast_to(vector, shape)[..., None], lower=True)[..., 0]


_FAMILIES: dict[type, _Family] = {
    dist.AsymmetricLaplace: _of_loc_and_scale("asymmetry"),
    dist.Cauchy: _of_loc_and_scale(),
    dist.GaussianRandomWalk: _Family(("scale",), _random_walk),
    dist.Gumbel: _of_loc_and_scale(),
    dist.Laplace: _of_loc_and_scale(),
    dist.Logistic: _of_loc_and_scale(),
    dist.MultivariateNormal: _Family(("loc", "scale_tril"), _multivariate_normal),
    dist.Normal: _of_loc_and_scale(),
    dist.SoftLaplace: _of_loc_and_scale(),
    dist.StudentT: _of_loc_and_scale("df"),
}
