"""Hard posteriors with many latent values of one kind, which their truths integrate out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import optimize, special, stats

from hard import LEVELS, HardRow, Truth, element, grid_posterior, share


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

    start = np.append(_LOADING, np.log(0.5))
    mode = optimize.minimize(lambda x: -log_joint(x[None])[0], start, method="BFGS")
    proposal = stats.multivariate_t(mode.x, 1.3 * mode.hess_inv, df=6)
    x = proposal.rvs(400_000, random_state=np.random.default_rng(0))
    log_weight = log_joint(x) - proposal.logpdf(x) + np.log(2.0)
    weight = np.exp(log_weight - log_weight.max())
    order = np.argsort(x[:, columns])
    cdf = np.cumsum(weight[order]) / weight.sum()
    points = [float(np.exp(x[order, columns][np.searchsorted(cdf, level)])) for level in LEVELS]
    return Truth(
        float(log_weight.max() + np.log(weight.mean())),
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


_GROUPS, _ROWS_PER_GROUP = 25, 4


def poisson_groups(y: jax.Array) -> None:
    """Log rates of groups around a common level, as users write them."""
    level = numpyro.sample("level", dist.Normal(0.0, 2.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(1.0))
    with numpyro.plate("group", _GROUPS):
        log_rate = numpyro.sample("log_rate", dist.Normal(level, spread))
    numpyro.sample("y", dist.Poisson(jnp.exp(log_rate)[:, None]).to_event(2), obs=y)


def _counts() -> np.ndarray:
    rng = np.random.default_rng(13)
    rate = np.exp(0.5 + 0.6 * rng.normal(size=_GROUPS))
    return rng.poisson(rate[:, None], (_GROUPS, _ROWS_PER_GROUP))


def _poisson_groups() -> Truth:
    y = _counts()
    level, log_spread = np.linspace(-1.5, 2.0, 141), np.linspace(-6.0, 1.5, 151)
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
        _poisson_groups,
        27,
        "a spread of groups, perhaps zero",
        lambda: {"y": _counts()},
    ),
)
