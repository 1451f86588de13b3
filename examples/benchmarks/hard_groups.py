"""Hard posteriors with many latent values of one kind, which their truths integrate out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import optimize, special, stats

from hard import LEVELS, HardRow, Truth, element, grid_posterior, share


def _by_importance(
    log_joint: Callable[[np.ndarray], np.ndarray], start: np.ndarray, num: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Points around a mode, their weights, and the log of the integral: `(num, dim)`, `(num,)`.

    Args:
        log_joint: log-density of parameters and data at points `(n, dim)`.
        start: from where the mode is looked for, `(dim,)`.
        num: how many points.
    """
    mode = optimize.minimize(lambda x: -log_joint(x[None])[0], start, method="BFGS")
    proposal = stats.multivariate_t(mode.x, 1.3 * mode.hess_inv, df=6)
    x = proposal.rvs(num, random_state=np.random.default_rng(0))
    log_p = np.concatenate([log_joint(part) for part in np.array_split(x, 20)])
    log_weight = log_p - proposal.logpdf(x)
    weight = np.exp(log_weight - log_weight.max())
    return x, weight, float(log_weight.max() + np.log(weight.mean()))


def _weighted_quantiles(values: np.ndarray, weight: np.ndarray) -> list[float]:
    """At the levels of `LEVELS`, of values `(n,)` with weights `(n,)`."""
    order = np.argsort(values)
    cdf = np.cumsum(weight[order]) / weight.sum()
    return [float(values[order][np.searchsorted(cdf, level)]) for level in LEVELS]


def one_factor(y: jax.Array) -> None:
    """Factor analysis: the sign of all loadings and scores together is not identified."""
    loading = numpyro.sample("loading", dist.Normal(0.0, 1.0).expand([y.shape[1]]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    score = numpyro.sample("score", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
    numpyro.sample("y", dist.Normal(score[:, None] * loading, noise).to_event(2), obs=y)


_LOADING = np.array([1.0, -0.8, 0.6, 0.9])


def _measured() -> np.ndarray:
    """Thirty rows of four columns."""
    rng = np.random.default_rng(7)
    return rng.normal(size=(30, 1)) * _LOADING + rng.normal(0.0, 0.5, (30, 4))


def _one_factor() -> Truth:
    """Importance sampling in five dimensions around one of two mirrored modes: error 0.001."""
    y = _measured()
    n, columns = y.shape
    products = y.T @ y

    def log_joint(x: np.ndarray) -> np.ndarray:
        loading, noise = x[:, :columns], np.exp(x[:, columns])
        signal, variance = (loading**2).sum(1), noise**2
        seen = np.einsum("ni,ij,nj->n", loading, products, loading) / (variance + signal)
        quadratic = (np.trace(products) - seen) / variance
        log_det = (columns - 1) * np.log(variance) + np.log(variance + signal)
        log_likelihood = -0.5 * (n * (columns * np.log(2.0 * np.pi) + log_det) + quadratic)
        log_prior = stats.norm.logpdf(loading).sum(1) + stats.halfnorm.logpdf(noise)
        return log_likelihood + log_prior + x[:, columns]

    x, weight, log_z = _by_importance(log_joint, np.append(_LOADING, np.log(0.5)), 400_000)
    points = _weighted_quantiles(np.exp(x[:, columns]), weight)
    return Truth(
        log_z + float(np.log(2.0)),
        (
            share("noise", element("noise"), points, LEVELS),
            share("sign", element("loading", 0), [0.0], [0.5]),
        ),
    )


def beta_groups(trials: jax.Array, y: jax.Array) -> None:
    """Rates of seventy groups from one beta distribution, in its own coordinates."""
    mean = numpyro.sample("mean", dist.Beta(2.0, 2.0))
    size = numpyro.sample("size", dist.Gamma(2.0, 0.1))
    with numpyro.plate("group", len(y)):
        rate = numpyro.sample("rate", dist.Beta(mean * size, (1.0 - mean) * size))
        numpyro.sample("y", dist.Binomial(trials, rate), obs=y)


def _litters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    trials = rng.integers(10, 50, 70)
    return {"trials": trials, "y": rng.binomial(trials, rng.beta(1.4, 8.6, 70))}


def _beta_groups() -> Truth:
    trials, y = _litters().values()
    mean, size = np.linspace(0.03, 0.5, 401), np.linspace(0.2, 120.0, 1201)
    m, s = np.meshgrid(mean, size, indexing="ij")
    log_joint = stats.beta(2.0, 2.0).logpdf(m) + stats.gamma(2.0, scale=10.0).logpdf(s)
    for n, k in zip(trials, y, strict=True):
        log_joint += special.betaln(m * s + k, (1.0 - m) * s + n - k)
        log_joint += -special.betaln(m * s, (1.0 - m) * s) + np.log(special.comb(n, k))
    values = {"mean": element("mean"), "size": element("size")}
    return grid_posterior({"mean": mean, "size": size}, log_joint, values)


_ROWS_PER_GROUP = 4


def poisson_groups(y: jax.Array) -> None:
    """Log rates of groups around a common level, as users write them."""
    level = numpyro.sample("level", dist.Normal(0.0, 2.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(1.0))
    with numpyro.plate("group", len(y)):
        log_rate = numpyro.sample("log_rate", dist.Normal(level, spread))
    numpyro.sample("y", dist.Poisson(jnp.exp(log_rate)[:, None]).to_event(2), obs=y)


def _counts(num_groups: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(13)
    rate = np.exp(0.5 + 0.6 * rng.normal(size=num_groups))
    return {"y": rng.poisson(rate[:, None], (num_groups, _ROWS_PER_GROUP))}


def _poisson_groups(num_groups: int, level: np.ndarray, log_spread: np.ndarray) -> Truth:
    y = _counts(num_groups)["y"]
    unit = np.linspace(-8.0, 8.0, 801)
    u, s = np.meshgrid(level, np.exp(log_spread), indexing="ij")
    log_rate = u[..., None] + s[..., None] * unit
    empty = stats.norm.logpdf(unit) - _ROWS_PER_GROUP * np.exp(log_rate)
    log_joint = stats.norm(0.0, 2.0).logpdf(u) + stats.halfcauchy.logpdf(s) + np.log(s)
    log_joint -= special.gammaln(y + 1.0).sum()
    totals, times = np.unique(y.sum(1), return_counts=True)
    for total, count in zip(totals, times, strict=True):
        log_integral = special.logsumexp(empty + total * log_rate, axis=-1)
        log_joint += count * (log_integral + np.log(unit[1] - unit[0]))
    values = {"level": element("level"), "log spread": lambda x: np.log(element("spread")(x))}
    return grid_posterior({"level": level, "log spread": log_spread}, log_joint, values)


def varying_slopes(group: jax.Array, x: jax.Array, y: jax.Array) -> None:
    """A line for each group, whose coefficients are correlated: as users write it."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([2]).to_event(1))
    corr = numpyro.sample("corr", dist.LKJCholesky(2, 2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("groups", _NUM_LINES):
        line = numpyro.sample("line", dist.MultivariateNormal(mean, scale_tril=sd[:, None] * corr))
    at = line[group, 0] + line[group, 1] * x
    numpyro.sample("y", dist.Normal(at, noise).to_event(1), obs=y)


_NUM_LINES, _ROWS_PER_LINE = 40, 8


def _lines() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(17)
    group = np.repeat(np.arange(_NUM_LINES), _ROWS_PER_LINE)
    x = rng.normal(size=len(group)).astype(np.float32)
    root = np.array([[1.0, 0.5], [0.0, 0.5]])
    line = np.array([1.0, 0.5]) + rng.normal(size=(_NUM_LINES, 2)) @ root
    y = line[group, 0] + line[group, 1] * x + 0.5 * rng.normal(size=len(group))
    return {"group": group, "x": x, "y": y.astype(np.float32)}


def _varying_slopes() -> Truth:
    """Importance sampling in sds, correlation and noise, all lines integrated out: error 0.003."""
    _, x, y = (value.reshape(_NUM_LINES, -1).astype(float) for value in _lines().values())
    design = np.stack([np.ones_like(x), x], -1)
    scatter = np.linalg.inv(np.einsum("gni,gnj->gij", design, design))
    fitted = np.einsum("gij,gnj,gn->gi", scatter, design, y)
    residual = ((y - np.einsum("gni,gi->gn", design, fitted)) ** 2).sum()
    num_free = y.size - 2 * _NUM_LINES
    log_2pi = np.log(2.0 * np.pi)

    def log_joint(point: np.ndarray) -> np.ndarray:
        sd, rho, noise = np.exp(point[:, :2]), np.tanh(point[:, 2]), np.exp(point[:, 3])
        correlation = np.where(np.eye(2, dtype=bool), 1.0, rho[:, None, None])
        covariance = sd[:, :, None] * sd[:, None, :] * correlation
        variance = covariance[:, None] + noise[:, None, None, None] ** 2 * scatter
        precision = np.linalg.inv(variance)
        of_mean = precision.sum(1) + np.eye(2) / 4.0
        towards = np.einsum("sgij,gj->si", precision, fitted)
        value = -0.5 * np.einsum("gi,sgij,gj->s", fitted, precision, fitted)
        value += 0.5 * np.einsum("si,sij,sj->s", towards, np.linalg.inv(of_mean), towards)
        value -= 0.5 * (np.linalg.slogdet(variance)[1].sum(1) + np.linalg.slogdet(of_mean)[1])
        value -= np.log(4.0) + _NUM_LINES * log_2pi
        # What no line explains.
        value -= num_free * (np.log(noise) + 0.5 * log_2pi) + 0.5 * residual / noise**2
        value += 0.5 * np.linalg.slogdet(scatter)[1].sum()
        value += (stats.halfnorm.logpdf(sd) + point[:, :2]).sum(1)
        value += stats.halfnorm.logpdf(noise) + point[:, 3]
        return value + np.log(0.75) + 2.0 * np.log1p(-(rho**2))

    start = np.array([np.log(1.1), np.log(0.5), np.arctanh(0.5), np.log(0.5)])
    points, weight, log_z = _by_importance(log_joint, start, 100_000)
    # Of LKJ's factor [[1, 0], [rho, sqrt(1 - rho^2)]].
    scalars = {
        "sd 0": (element("sd", 0), np.exp(points[:, 0])),
        "sd 1": (element("sd", 1), np.exp(points[:, 1])),
        "correlation": (element("corr", 1, 0), np.tanh(points[:, 2])),
        "noise": (element("noise"), np.exp(points[:, 3])),
    }
    marginals = [
        share(name, function, _weighted_quantiles(values, weight), LEVELS)
        for name, (function, values) in scalars.items()
    ]
    return Truth(log_z, tuple(marginals))


def random_walk(y: jax.Array) -> None:
    """A level that moves at random, measured with an error: both scales unknown."""
    moves = numpyro.sample("moves", dist.HalfNormal(1.0))
    error = numpyro.sample("error", dist.HalfNormal(1.0))
    level = numpyro.sample("level", dist.GaussianRandomWalk(moves, num_steps=len(y)))
    numpyro.sample("y", dist.Normal(level, error).to_event(1), obs=y)


def _levels() -> np.ndarray:
    rng = np.random.default_rng(19)
    return (np.cumsum(0.2 * rng.normal(size=150)) + rng.normal(size=150)).astype(np.float32)


def _random_walk() -> Truth:
    log_moves, log_error = np.linspace(-4.5, 0.5, 251), np.linspace(-0.6, 0.6, 121)
    q, r = np.meshgrid(np.exp(2.0 * log_moves), np.exp(2.0 * log_error), indexing="ij")
    mean, variance, log_joint = np.zeros_like(q), np.zeros_like(q), np.log(q * r) / 2.0
    for value in _levels().astype(float):
        variance = variance + q
        total = variance + r
        log_joint += stats.norm.logpdf(value, mean, np.sqrt(total))
        mean, variance = mean + variance / total * (value - mean), variance * r / total
    log_joint += stats.halfnorm.logpdf(np.sqrt(q)) + stats.halfnorm.logpdf(np.sqrt(r))
    values = {
        "log moves": lambda x: np.log(element("moves")(x)),
        "log error": lambda x: np.log(element("error")(x)),
    }
    return grid_posterior({"log moves": log_moves, "log error": log_error}, log_joint, values)


def two_instruments(first: jax.Array, second: jax.Array) -> None:
    """Values measured twice: either error may be zero, and pins all of them."""
    error = numpyro.sample("error", dist.HalfNormal(1.0).expand([2]).to_event(1))
    with numpyro.plate("n", len(first)):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("first", dist.Normal(x, error[0]), obs=first)
        numpyro.sample("second", dist.Normal(x, error[1]), obs=second)


def _measured_twice() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(29)
    x = rng.normal(size=25)
    first, second = (x + 0.3 * rng.normal(size=25) for _ in range(2))
    return {"first": first.astype(np.float32), "second": second.astype(np.float32)}


def _two_instruments() -> Truth:
    first, second = (y.astype(float) for y in _measured_twice().values())
    log_error = np.linspace(-9.0, 0.5, 951)
    a, b = np.exp(2.0 * log_error)[:, None], np.exp(2.0 * log_error)
    # Of the covariance (1 + a, 1; 1, 1 + b), with a and b the two squares.
    det = a + b + a * b
    squares = (1.0 + b) * (first**2).sum() + (1.0 + a) * (second**2).sum()
    quadratic = (squares - 2.0 * (first * second).sum()) / det
    log_joint = -0.5 * (len(first) * (2.0 * np.log(2.0 * np.pi) + np.log(det)) + quadratic)
    for square in (a, b):
        log_joint = log_joint + stats.halfnorm.logpdf(np.sqrt(square)) + 0.5 * np.log(square)
    values = {f"log error {i}": lambda x, i=i: np.log(element("error", i)(x)) for i in range(2)}
    return grid_posterior(dict.fromkeys(values, log_error), log_joint, values)


ROWS = (
    HardRow(
        "one_factor",
        one_factor,
        _one_factor,
        35,
        "mirrored modes in many dimensions",
        lambda: {"y": _measured()},
    ),
    HardRow("beta_groups", beta_groups, _beta_groups, 72, "seventy rates near zero", _litters),
    HardRow(
        "poisson_groups",
        poisson_groups,
        lambda: _poisson_groups(25, np.linspace(-1.5, 2.0, 141), np.linspace(-6.0, 1.5, 151)),
        27,
        "a spread of groups, perhaps zero",
        lambda: _counts(25),
    ),
    HardRow(
        "many_groups",
        poisson_groups,
        lambda: _poisson_groups(300, np.linspace(0.2, 0.8, 121), np.linspace(-0.9, -0.1, 121)),
        302,
        "three hundred skew coordinates",
        lambda: _counts(300),
    ),
    HardRow(
        "varying_slopes",
        varying_slopes,
        _varying_slopes,
        86,
        "correlated effects, their covariance unknown",
        _lines,
    ),
    HardRow(
        "random_walk",
        random_walk,
        _random_walk,
        152,
        "a scale of moves behind errors",
        lambda: {"y": _levels()},
    ),
    HardRow(
        "two_instruments",
        two_instruments,
        _two_instruments,
        27,
        "twenty-five values pinned by an error near zero",
        _measured_twice,
    ),
)
