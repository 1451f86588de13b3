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
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import erf, erfinv, log_ndtr, ndtri
from numpyro.infer.reparam import Reparam

_LOG_HALF = -math.log(2.0)
_FIXED_POINT_STEPS = 4
# Logarithm of the largest ratio of a value to its scale: float32 ends at exp(88).
_LARGEST = 80.0


class _Family(NamedTuple):
    """A family with closed forms that are accurate in both tails.

    Attributes:
        quantile: the value at given logarithms of the probabilities below and above it.
        log_tails: the inverse.
        parameters: their names.
    """

    quantile: Callable[[Any, jax.Array, jax.Array], jax.Array]
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
    smaller = log_ndtr(-jnp.abs(score))
    larger = _log1mexp(smaller)
    left = score < 0.0
    below, above = jnp.where(left, smaller, larger), jnp.where(left, larger, smaller)
    return _FAMILIES[type(fn)].quantile(fn, below, above)


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


def _half_cauchy(fn: Any, below: jax.Array, above: jax.Array) -> jax.Array:
    is_left, log_p = _smaller(below, above)
    log_ratio = jnp.maximum(_log_tan(log_p), -_LARGEST)
    return fn.scale * jnp.exp(jnp.where(is_left, log_ratio, -log_ratio))


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


def _half_normal(fn: Any, below: jax.Array, above: jax.Array) -> jax.Array:
    is_left = below <= above
    # Each is evaluated on its own side only: gradients of the other one may be infinite.
    on_left, on_right = (
        jnp.where(s, q, _LOG_HALF) for s, q in ((is_left, below), (~is_left, above))
    )
    left, right = math.sqrt(2.0) * erfinv(jnp.exp(on_left)), -_log_ndtri(on_right + _LOG_HALF)
    return fn.scale * jnp.where(is_left, left, right)


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


_FAMILIES: dict[type, _Family] = {
    dist.Cauchy: _Family(_cauchy, _cauchy_tails, ("loc", "scale")),
    dist.Exponential: _Family(_exponential, _exponential_tails, ("rate",)),
    dist.HalfCauchy: _Family(_half_cauchy, _half_cauchy_tails, ("scale",)),
    dist.HalfNormal: _Family(_half_normal, _half_normal_tails, ("scale",)),
    dist.Laplace: _Family(_laplace, _laplace_tails, ("loc", "scale")),
    dist.Logistic: _Family(_logistic, _logistic_tails, ("loc", "scale")),
    dist.Uniform: _Family(_uniform, _uniform_tails, ("low", "high")),
}
