"""Hard posteriors of models with data, with closed-form or quadrature answers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import special, stats

import data
import models
from hard import HardRow, Truth, element, from_grid, grid_posterior, log_integral, quantiles, share
from hard_volatility import ROWS as VOLATILITY_ROWS


def ridge(y: jax.Array) -> None:
    """Only the product of two positive numbers is measured: a hyperbola."""
    a = numpyro.sample("a", dist.HalfNormal(3.0))
    b = numpyro.sample("b", dist.HalfNormal(3.0))
    numpyro.sample("y", dist.Normal(a * b, 0.05), obs=y)


def _ridge() -> Truth:
    y, s, prior = 2.0, 0.05, 3.0
    log_a = np.linspace(-5.0, 3.0, 20_001)
    a = np.exp(log_a)
    # b integrates to a truncated normal given a.
    precision = prior**-2 + (a / s) ** 2
    inside = special.log_ndtr(y * a / s**2 / np.sqrt(precision))
    given_a = np.log(2.0) + stats.norm.logpdf(y, 0.0, np.hypot(s, prior * a)) + inside
    log_joint = stats.halfnorm(scale=prior).logpdf(a) + given_a + log_a
    density = np.exp(log_joint - log_joint.max())
    product = lambda s: element("a")(s) * element("b")(s)  # noqa: E731
    log_ratio = lambda s: np.log(element("a")(s) / element("b")(s))  # noqa: E731
    return Truth(
        log_integral(log_a, log_joint),
        (
            from_grid("log a", lambda s: np.log(element("a")(s)), log_a, density),
            share("a < b", log_ratio, [0.0], [0.5]),
            # The product is its measurement, up to a prior that hardly bends over 0.05.
            share("product", product, [y - s, y + s], [stats.norm.cdf(-1.0), stats.norm.cdf(1.0)]),
        ),
    )


def only_the_sum(y: jax.Array) -> None:
    """Two numbers with wide priors, and a precise measurement of their sum."""
    a = numpyro.sample("a", dist.Normal(0.0, 100.0))
    b = numpyro.sample("b", dist.Normal(0.0, 100.0))
    numpyro.sample("y", dist.Normal(a + b, 0.01), obs=y)


def _only_the_sum() -> Truth:
    y, prior, s = 3.0, 100.0, 0.01
    total = lambda s: element("a")(s) + element("b")(s)  # noqa: E731
    gain = prior**2 / (2.0 * prior**2 + s**2)
    a = stats.norm(gain * y, prior * np.sqrt(1.0 - gain))
    return Truth(
        float(stats.norm(0.0, np.sqrt(2.0 * prior**2 + s**2)).logpdf(y)),
        (quantiles("a", element("a"), a), quantiles("a + b", total, stats.norm(y, s))),
    )


_TRIALS, _SUCCESSES = 3, np.array([0, 3, 1])


def edge_of_beta(y: jax.Array) -> None:
    """Probabilities whose prior and data both push them to 0 and to 1."""
    p = numpyro.sample("p", dist.Beta(0.5, 0.5).expand([len(y)]).to_event(1))
    numpyro.sample("y", dist.Binomial(_TRIALS, p).to_event(1), obs=y)


def _edge_of_beta() -> Truth:
    log_z = stats.betabinom(_TRIALS, 0.5, 0.5).logpmf(_SUCCESSES).sum()
    marginals = [
        quantiles(f"p[{i}]", element("p", i), stats.beta(0.5 + y, 0.5 + _TRIALS - y))
        for i, y in enumerate(_SUCCESSES)
    ]
    return Truth(float(log_z), tuple(marginals))


_OUTSIDE, _ERROR = np.array([1.5, -0.3, 0.98]), 0.2


def edge_of_uniform(y: jax.Array) -> None:
    """Parameters in (0, 1) whose data lie beyond both ends."""
    theta = numpyro.sample("theta", dist.Uniform(0.0, 1.0).expand([len(y)]).to_event(1))
    numpyro.sample("y", dist.Normal(theta, _ERROR).to_event(1), obs=y)


def _edge_of_uniform() -> Truth:
    low, high = -_OUTSIDE / _ERROR, (1.0 - _OUTSIDE) / _ERROR
    log_z = np.log(stats.norm.cdf(high) - stats.norm.cdf(low)).sum()
    marginals = [
        quantiles(f"theta[{i}]", element("theta", i), stats.truncnorm(low[i], high[i], y, _ERROR))
        for i, y in enumerate(_OUTSIDE)
    ]
    return Truth(float(log_z), tuple(marginals))


_COUNTS, _CONCENTRATION = np.array([5, 0, 0, 1, 0, 20]), 0.2


def edge_of_simplex(y: jax.Array) -> None:
    """A composition of six parts, three of which were never seen."""
    p = numpyro.sample("p", dist.Dirichlet(_CONCENTRATION * jnp.ones(6)))
    numpyro.sample("y", dist.Multinomial(26, p), obs=y)


def _edge_of_simplex() -> Truth:
    shape = _CONCENTRATION + _COUNTS
    log_z = stats.dirichlet_multinomial(np.full(6, _CONCENTRATION), 26).logpmf(_COUNTS)
    marginals = [
        quantiles(f"p[{i}]", element("p", i), stats.beta(shape[i], shape.sum() - shape[i]))
        for i in (0, 1, 3, 4, 5)
    ]
    return Truth(float(log_z), tuple(marginals))


def horseshoe(y: jax.Array) -> None:
    """Sparse means: scales of every size, funnels along each axis (Carvalho et al. 2010)."""
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    with numpyro.plate("effect", len(y)):
        local = numpyro.sample("lambda", dist.HalfCauchy(1.0))
        raw = numpyro.sample("raw", dist.Normal(0.0, 1.0))
        beta = numpyro.deterministic("beta", tau * local * raw)
        numpyro.sample("y", dist.Normal(beta, 1.0), obs=y)


_SPARSE = np.array([0.3, -0.8, 5.0, 0.1, -1.2, 0.6, -6.0, 2.5, -0.2, 0.9])


def _horseshoe() -> Truth:
    log_tau, log_local = np.linspace(-14.0, 8.0, 441), np.linspace(-14.0, 14.0, 1401)
    prior = lambda t: np.log(2.0 / np.pi) - np.log1p(np.exp(2.0 * t)) + t  # noqa: E731
    variance = np.exp(2.0 * (log_tau[:, None] + log_local))
    weight = np.exp(prior(log_local)) * (log_local[1] - log_local[0])
    by_effect = [(stats.norm.pdf(y, 0.0, np.sqrt(1.0 + variance)) * weight) for y in _SPARSE]
    log_joint = prior(log_tau) + sum(np.log(p.sum(1)) for p in by_effect)
    density = np.exp(log_joint - log_joint.max())
    marginals = [from_grid("log tau", lambda s: np.log(element("tau")(s)), log_tau, density)]
    gain = variance / (1.0 + variance)
    for i in (0, 2, 7):
        points = _SPARSE[i] * np.array([0.25, 0.5, 1.0])
        given = by_effect[i] / by_effect[i].sum(1, keepdims=True)
        below = [
            (given * special.ndtr((q - gain * _SPARSE[i]) / np.sqrt(gain))).sum(1) for q in points
        ]
        probabilities = [float(b @ density / density.sum()) for b in below]
        marginals.append(share(f"beta[{i}]", element("beta", i), points, probabilities))
    return Truth(log_integral(log_tau, log_joint), tuple(marginals))


def ill_conditioned(x: jax.Array, y: jax.Array) -> None:
    """Linear regression with known noise."""
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ b, 1.0).to_event(1), obs=y)


def _collinear() -> dict[str, np.ndarray]:
    """A design of condition number 1e8, as it is in single precision."""
    rng = np.random.default_rng(8)
    left, _ = np.linalg.qr(rng.normal(size=(50, 10)))
    right, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    x = ((left * np.logspace(4.0, -4.0, 10)) @ right.T).astype(np.float32)
    y = x.astype(float) @ rng.normal(size=10) + rng.normal(size=50)
    return {"x": x, "y": y.astype(np.float32)}


def _ill_conditioned() -> Truth:
    x, y = (v.astype(float) for v in _collinear().values())
    # One direction at a time: the full matrices are singular even in double precision.
    left, s, right = np.linalg.svd(x, full_matrices=False)
    seen = left.T @ y
    rest = y @ y - seen @ seen
    log_z = stats.norm.logpdf(seen, 0.0, np.sqrt(1.0 + s**2)).sum()
    log_z += -0.5 * rest - 0.5 * (len(y) - len(s)) * np.log(2.0 * np.pi)
    mean = right.T @ (s * seen / (1.0 + s**2))
    sd = np.sqrt(((right.T) ** 2 / (1.0 + s**2)).sum(1))
    marginals = [
        quantiles(f"b[{i}]", element("b", i), stats.norm(mean[i], sd[i])) for i in (0, 4, 9)
    ]
    steep = stats.norm(s[0] * seen[0] / (1.0 + s[0] ** 2), 1.0 / np.sqrt(1.0 + s[0] ** 2))
    along = lambda s: np.asarray(s["b"], float) @ right[0]  # noqa: E731
    return Truth(float(log_z), (*marginals, quantiles("steepest", along, steep)))


def many_observations(y: jax.Array) -> None:
    """A normal sample so large that single precision shows in the log-density."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    scale = numpyro.sample("scale", dist.HalfNormal(10.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def _large_sample() -> dict[str, np.ndarray]:
    return {"y": np.random.default_rng(5).normal(2.0, 3.0, 100_000).astype(np.float32)}


def _many_observations() -> Truth:
    y = _large_sample()["y"].astype(float)
    n, centre, sd = len(y), y.mean(), y.std()
    mean = centre + sd / np.sqrt(n) * np.linspace(-8.0, 8.0, 401)
    scale = sd * (1.0 + np.linspace(-8.0, 8.0, 401) / np.sqrt(2.0 * n))
    residual = n * (sd**2 + (mean[:, None] - centre) ** 2)
    log_joint = -n * np.log(scale * np.sqrt(2.0 * np.pi)) - 0.5 * residual / scale**2
    log_joint = log_joint + stats.norm(0.0, 10.0).logpdf(mean)[:, None]
    log_joint = log_joint + stats.halfnorm(scale=10.0).logpdf(scale)
    values = {"mean": element("mean"), "scale": element("scale")}
    return grid_posterior({"mean": mean, "scale": scale}, log_joint, values)


_VISITS = np.array([0, 0, 0, 1, 0, 2, 0, 0, 0, 1, 0, 0])


def zero_inflated(y: jax.Array) -> None:
    """Rare counts: too many zeros, or a small rate?"""
    gate = numpyro.sample("gate", dist.Uniform(0.0, 1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 0.5))
    numpyro.sample("y", dist.ZeroInflatedPoisson(gate, rate), obs=y)


def _zero_inflated() -> Truth:
    gate, rate = np.linspace(1e-6, 1.0 - 1e-6, 801), np.linspace(1e-6, 30.0, 3001)
    g, r = np.meshgrid(gate, rate, indexing="ij")
    log_joint = stats.gamma(2.0, scale=2.0).logpdf(r)
    for y in _VISITS:
        counted = np.log1p(-g) + stats.poisson.logpmf(y, r)
        log_joint = log_joint + (np.logaddexp(np.log(g), counted) if y == 0 else counted)
    values = {"gate": element("gate"), "rate": element("rate")}
    return grid_posterior({"gate": gate, "rate": rate}, log_joint, values)


def _schools() -> Truth:
    y, variance = data.EIGHT_SCHOOLS["y"], data.EIGHT_SCHOOLS["sigma"] ** 2
    log_tau = np.linspace(-9.0, 7.0, 1601)
    tau = np.exp(log_tau)
    spread = tau[:, None] ** 2 + variance
    precision, sum_y = (1.0 / spread).sum(1), (y / spread).sum(1)
    # mu ~ N(0, 5) integrates out of independent N(mu, spread).
    log_likelihood = -0.5 * (np.log(2.0 * np.pi * spread) + y**2 / spread).sum(1)
    log_likelihood += 0.5 * sum_y**2 / (precision + 0.04) - 0.5 * np.log1p(25.0 * precision)
    log_joint = log_likelihood + stats.halfcauchy(scale=5.0).logpdf(tau) + log_tau
    density = np.exp(log_joint - log_joint.max())
    value = lambda s: np.log(element("tau")(s))  # noqa: E731
    neck = log_tau < np.log(0.5)
    below = np.trapezoid(density[neck], log_tau[neck]) / np.trapezoid(density, log_tau)
    return Truth(
        log_integral(log_tau, log_joint),
        (
            from_grid("log tau", value, log_tau, density),
            share("neck", value, [float(log_tau[neck][-1])], [float(below)]),
        ),
    )


def _schools_row(name: str, why: str, *, centred: bool) -> HardRow:
    model = partial(models.eight_schools, centred=centred)
    return HardRow(name, model, _schools, 10, why, lambda: dict(data.EIGHT_SCHOOLS))


_COUNTS_OF_ONE_RATE = np.tile([3, 1, 4, 2, 3, 5, 2, 3, 1, 4], 6)


def negative_binomial(y: jax.Array) -> None:
    """Counts that are nearly Poisson's: any large concentration will do."""
    mean = numpyro.sample("mean", dist.LogNormal(1.0, 1.0))
    concentration = numpyro.sample("concentration", dist.HalfCauchy(5.0))
    numpyro.sample("y", dist.NegativeBinomial2(mean, concentration), obs=y)


def _negative_binomial() -> Truth:
    # The data say nothing beyond a concentration of 1e7, of which the prior holds 3e-7.
    log_mean, log_size = np.linspace(-1.0, 3.0, 401), np.linspace(-6.0, 16.0, 2201)
    mean, size = np.exp(log_mean)[:, None], np.exp(log_size)
    log_joint = stats.norm(1.0, 1.0).logpdf(log_mean)[:, None]
    log_joint = log_joint + stats.halfcauchy(scale=5.0).logpdf(size) + log_size
    for y, times in zip(*np.unique(_COUNTS_OF_ONE_RATE, return_counts=True), strict=True):
        log_joint = log_joint + times * stats.nbinom.logpmf(y, size, size / (size + mean))
    values = {
        "log mean": lambda s: np.log(element("mean")(s)),
        "log concentration": lambda s: np.log(element("concentration")(s)),
    }
    return grid_posterior({"log mean": log_mean, "log concentration": log_size}, log_joint, values)


def _row(model, truth, dim: int, why: str, y: np.ndarray) -> HardRow:
    return HardRow(model.__name__, model, truth, dim, why, lambda: {"y": y})


ROWS = (
    _schools_row("eight_schools", "a healthy one, for comparison", centred=False),
    _schools_row("eight_schools_centred", "a funnel of a user's making", centred=True),
    _row(ridge, _ridge, 2, "a hyperbola", np.array(2.0)),
    _row(only_the_sum, _only_the_sum, 2, "sds apart by 20,000", np.array(3.0)),
    _row(edge_of_beta, _edge_of_beta, 3, "mass at both ends", _SUCCESSES),
    _row(edge_of_uniform, _edge_of_uniform, 3, "mass at both ends", _OUTSIDE),
    _row(edge_of_simplex, _edge_of_simplex, 5, "parts near zero", _COUNTS),
    _row(horseshoe, _horseshoe, 21, "Cauchy scales, funnels", _SPARSE),
    HardRow(
        "ill_conditioned",
        ill_conditioned,
        _ill_conditioned,
        10,
        "condition number 1e8",
        _collinear,
    ),
    HardRow(
        "many_observations",
        many_observations,
        _many_observations,
        2,
        "100,000 observations",
        _large_sample,
    ),
    _row(zero_inflated, _zero_inflated, 2, "two explanations", _VISITS),
    _row(
        negative_binomial,
        _negative_binomial,
        2,
        "single precision cancels",
        _COUNTS_OF_ONE_RATE,
    ),
    *VOLATILITY_ROWS,
)
