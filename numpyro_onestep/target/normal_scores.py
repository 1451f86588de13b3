r"""Sites in the normal scores of their prior.

In the place of a site `x` with distribution function `F` stands `v = Phi^-1(F(x))`, whose prior is
a standard normal. Where the likelihood says little, the posterior of `v` has the tails of a normal;
those of `log x` are exponential, to the left for a half-normal and to both sides for a half-Cauchy.
The evidence does not change.

Everything goes through the logarithms of the smaller tail, so that points far out keep all their
digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import erf, erfinv, log_ndtr, ndtr, ndtri
from numpyro.infer.reparam import Reparam
from scipy import special

_LOG_HALF = -math.log(2.0)
_FIXED_POINT_STEPS = 4
# Logarithm of the largest ratio of a value to its scale: float32 ends at exp(88).
_LARGEST = 80.0
_INV_ROOT = 1.0 / math.sqrt(2.0 * math.pi)
# Beyond this score the square of a half-normal value exceeds that of its score by a polynomial in
# `2 _FAR^2 / v^2 - 1`, to 1e-11.
_FAR, _DEGREE, _NEWTON_STEPS = 2.5, 12, 20


class _Family(NamedTuple):
    """A family with closed forms that are accurate in both tails.

    Attributes:
        value: the value at a score.
        log_tails: logarithms of the probabilities below and above a value.
        parameters: their names.
    """

    value: Callable[[Any, jax.Array], jax.Array]
    log_tails: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    parameters: tuple[str, ...]


class NormalScore(Reparam):
    """The site as a function of its normal score, for NumPyro's handler `reparam`."""

    def __call__(self, name: str, fn: Any, obs: Any) -> tuple[None, jax.Array]:
        """Samples the score at the site of `auxiliary_name`."""
        bare, expand_shape, event_dim = self._unwrap(fn)
        standard = dist.Normal(jnp.zeros(bare.batch_shape), 1.0)
        score = numpyro.sample(auxiliary_name(name), self._wrap(standard, expand_shape, event_dim))
        return None, value_at(bare, score)


def auxiliary_name(site: str) -> str:
    """Name of the site that takes the place of another."""
    return f"{site}_decentered"


def has_normal_score(fn: Any) -> bool:
    """Whether a distribution, without event dimensions and expansions, is of such a family."""
    return type(fn) in _FAMILIES


def parameters(fn: Any) -> tuple[Any, ...]:
    """The parameters of a distribution of such a family."""
    return tuple(getattr(fn, name) for name in _FAMILIES[type(fn)].parameters)


def value_at(fn: Any, score: jax.Array) -> jax.Array:
    """`F^-1(Phi(v))`, elementwise."""
    return _FAMILIES[type(fn)].value(fn, score)


def score_of(fn: Any, value: jax.Array) -> jax.Array:
    """`Phi^-1(F(x))`, elementwise."""
    below, above = _FAMILIES[type(fn)].log_tails(fn, value)
    score = _log_ndtri(jnp.minimum(below, above))
    return jnp.where(below <= above, score, -score)


@jax.custom_jvp
def _log_ndtri(log_p: jax.Array) -> jax.Array:
    """`Phi^-1(exp(log_p))` for `log_p <= log(1/2)`.

    Where `exp(log_p)` underflows, from the asymptotic series of `log Phi`, solved for the square.
    """
    smallest = math.log(jnp.finfo(log_p.dtype).tiny)
    near = jnp.clip(log_p, smallest, _LOG_HALF)
    doubled = -2.0 * jnp.minimum(log_p, smallest) - math.log(2.0 * math.pi)
    square = doubled
    for _ in range(_FIXED_POINT_STEPS):
        series = (3.0 / square - 1.0) / square
        square = doubled - jnp.log(square) + 2.0 * jnp.log1p(series)
    return jnp.where(log_p < smallest, -jnp.sqrt(square), ndtri(jnp.exp(near)))


@_log_ndtri.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    x, log_p = _log_ndtri(*primals), jnp.minimum(primals[0], _LOG_HALF)
    # The probability over the density.
    slope = jnp.exp(log_p + 0.5 * x**2 + 0.5 * math.log(2.0 * math.pi))
    return x, tangents[0] * slope


def _smaller(below: jax.Array, above: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether the left tail is the smaller one, and its or the other one's log-probability."""
    # Not the minimum of the two: at the median its gradient is the mean of theirs, zero.
    is_left = below <= above
    return is_left, jnp.where(is_left, below, above)


def _log_tan(log_p: jax.Array) -> jax.Array:
    """`log tan(pi p / 2)` for `p <= 1/2`."""
    z = 0.5 * math.pi * jnp.exp(log_p)
    safe = jnp.maximum(z, 1e-3)
    ratio = jnp.where(z < 1e-3, 1.0 + z**2 / 3.0, jnp.tan(safe) / safe)
    return math.log(0.5 * math.pi) + log_p + jnp.log(ratio)


def _log1mexp(log_p: jax.Array) -> jax.Array:
    """`log(1 - p)`."""
    return jnp.log1p(-jnp.exp(log_p))


def _by_log_tails(
    quantile: Callable[[Any, jax.Array, jax.Array], jax.Array],
) -> Callable[[Any, jax.Array], jax.Array]:
    """The value at a score, from the one at logarithms of the probabilities below and above it."""

    def value(fn: Any, score: jax.Array) -> jax.Array:
        smaller = log_ndtr(-jnp.abs(score))
        larger = _log1mexp(smaller)
        left = score < 0.0
        return quantile(fn, jnp.where(left, smaller, larger), jnp.where(left, larger, smaller))

    return value


def _half_cauchy(fn: Any, score: jax.Array) -> jax.Array:
    return fn.scale * _standard_half_cauchy(score)


@jax.custom_jvp
def _standard_half_cauchy(score: jax.Array) -> jax.Array:
    """`tan(pi / 2 Phi(v))`: the smaller of it and its inverse comes from the smaller tail."""
    smaller = jnp.maximum(jnp.tan(0.5 * math.pi * ndtr(-jnp.abs(score))), math.exp(-_LARGEST))
    return jnp.where(score < 0.0, smaller, 1.0 / smaller)


@_standard_half_cauchy.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (score,) = primals
    value = _standard_half_cauchy(score)
    # The density of the score over that of the value, `density (1 + value^2)`, each tail by itself.
    left, density = score < 0.0, 0.5 * math.pi * _INV_ROOT * jnp.exp(-0.5 * score**2)
    small, large = jnp.where(left, value, 1.0), jnp.where(left, 1.0, value)
    on_left, on_right = density * (1.0 + small**2), density * (1.0 + (1.0 / large) ** 2)
    return value, tangents[0] * jnp.where(left, on_left, large * (large * on_right))


def _half_cauchy_tails(fn: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    def log_share(ratio: jax.Array) -> jax.Array:
        return jnp.log(jnp.arctan(ratio) * (2.0 / math.pi))

    return log_share(x / fn.scale), log_share(fn.scale / x)


def _cauchy(fn: Any, below: jax.Array, above: jax.Array) -> jax.Array:
    is_left, log_p = _smaller(below, above)
    log_p = jnp.maximum(log_p, -_LARGEST)
    # The cotangent of pi p, as its share of 1 / (pi p).
    z = math.pi * jnp.exp(log_p)
    safe = jnp.maximum(z, 1e-3)
    share = jnp.where(z < 1e-3, 1.0 - z**2 / 3.0, safe * jnp.cos(safe) / jnp.sin(safe))
    distance = share * jnp.exp(-log_p) / math.pi
    return fn.loc + fn.scale * jnp.where(is_left, -distance, distance)


def _cauchy_tails(fn: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    z = (x - fn.loc) / fn.scale
    below, above = (jnp.log(jnp.arctan2(1.0, side) / math.pi) for side in (-z, z))
    return below, above


def _half_normal(fn: Any, score: jax.Array) -> jax.Array:
    return fn.scale * _standard_half_normal(score)


@jax.custom_jvp
def _standard_half_normal(score: jax.Array) -> jax.Array:
    """`sqrt(2) erfinv(Phi(v))`; far to the right, where that loses its digits, from `_EXCESS`."""
    near = math.sqrt(2.0) * erfinv(ndtr(jnp.minimum(score, _FAR)))
    square = jnp.maximum(score, _FAR) ** 2
    place = 2.0 * _FAR**2 / square - 1.0
    excess = jnp.zeros_like(place)
    for coefficient in _EXCESS:
        excess = excess * place + coefficient
    return jnp.where(score < _FAR, near, jnp.sqrt(square + excess))


@_standard_half_normal.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (score,) = primals
    value = _standard_half_normal(score)
    # The density of the score over that of the value.
    slope = 0.5 * jnp.exp(0.5 * (value - score) * (value + score))
    return value, tangents[0] * slope


def _half_normal_tails(fn: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    z = x / fn.scale
    return jnp.log(erf(z / math.sqrt(2.0))), log_ndtr(-z) - _LOG_HALF


def _exponential(fn: Any, below: jax.Array, above: jax.Array) -> jax.Array:
    return -above / fn.rate


def _exponential_tails(fn: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    above = -fn.rate * x
    return jnp.log(-jnp.expm1(above)), above


def _laplace(fn: Any, below: jax.Array, above: jax.Array) -> jax.Array:
    is_left, log_p = _smaller(below, above)
    distance = _LOG_HALF - log_p
    return fn.loc + fn.scale * jnp.where(is_left, -distance, distance)


def _laplace_tails(fn: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    smaller = _LOG_HALF - jnp.abs(x - fn.loc) / fn.scale
    larger = _log1mexp(smaller)
    left = x < fn.loc
    return jnp.where(left, smaller, larger), jnp.where(left, larger, smaller)


def _logistic(fn: Any, below: jax.Array, above: jax.Array) -> jax.Array:
    return fn.loc + fn.scale * (below - above)


def _logistic_tails(fn: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    z = (x - fn.loc) / fn.scale
    return jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)


def _uniform(fn: Any, below: jax.Array, above: jax.Array) -> jax.Array:
    width = fn.high - fn.low
    is_left, log_p = _smaller(below, above)
    distance = width * jnp.exp(log_p)
    value = jnp.where(is_left, fn.low + distance, fn.high - distance)
    # The bounds themselves are not inside, but rounding leads there.
    return jnp.clip(value, jnp.nextafter(fn.low, fn.high), jnp.nextafter(fn.high, fn.low))


def _uniform_tails(fn: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    width = fn.high - fn.low
    return jnp.log((x - fn.low) / width), jnp.log((fn.high - x) / width)


def _excess() -> tuple[float, ...]:
    """Coefficients of that polynomial, the highest power first, by interpolation."""
    nodes = np.polynomial.chebyshev.chebpts1(_DEGREE + 1)
    score = _FAR * np.sqrt(2.0 / (1.0 + nodes))
    log_p = special.log_ndtr(-score) - math.log(2.0)
    value = np.sqrt(score**2 + 2.0 * math.log(2.0))
    for _ in range(_NEWTON_STEPS):
        found = special.log_ndtr(-value)
        density = np.exp(-0.5 * value**2 - found) * _INV_ROOT
        value += (found - log_p) / density
    fit = np.polynomial.Chebyshev.fit(nodes, value**2 - score**2, _DEGREE, domain=[-1.0, 1.0])
    return tuple(map(float, np.polynomial.chebyshev.cheb2poly(fit.coef)[::-1]))


_EXCESS = _excess()
_FAMILIES: dict[type, _Family] = {
    dist.Cauchy: _Family(_by_log_tails(_cauchy), _cauchy_tails, ("loc", "scale")),
    dist.Exponential: _Family(_by_log_tails(_exponential), _exponential_tails, ("rate",)),
    dist.HalfCauchy: _Family(_half_cauchy, _half_cauchy_tails, ("scale",)),
    dist.HalfNormal: _Family(_half_normal, _half_normal_tails, ("scale",)),
    dist.Laplace: _Family(_by_log_tails(_laplace), _laplace_tails, ("loc", "scale")),
    dist.Logistic: _Family(_by_log_tails(_logistic), _logistic_tails, ("loc", "scale")),
    dist.Uniform: _Family(_by_log_tails(_uniform), _uniform_tails, ("low", "high")),
}
