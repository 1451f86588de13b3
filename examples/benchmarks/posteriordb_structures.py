"""Hierarchies, series, mixtures, hidden states, curves and equations of posteriordb in NumPyro."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.experimental.ode import odeint
from numpyro.distributions import constraints

from posteriordb_entry import Data, Entry, flat, flat_positive


def ark(lags: jax.Array, y: jax.Array) -> None:
    """Autoregression: lags (n, k) of y (n,)."""
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([lags.shape[1]]))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y)


def arma11(y: jax.Array) -> None:
    """Autoregression and moving average of order one."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    phi = numpyro.sample("phi", dist.Normal(0.0, 2.0))
    theta = numpyro.sample("theta", dist.Normal(0.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))

    def step(error: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        before, now = pair
        error = now - (mu + phi * before + theta * error)
        return error, error

    first = y[0] - (mu + phi * mu)
    _, errors = jax.lax.scan(step, first, (y[:-1], y[1:]))
    errors = jnp.concatenate([first[None], errors])
    numpyro.factor("errors", dist.Normal(0.0, sigma).log_prob(errors).sum())


def garch11(y: jax.Array, first: float) -> None:
    """Volatility that feeds on the last shock; beta1 flat below what alpha1 leaves."""
    mu = flat("mu")
    alpha0 = flat_positive("alpha0")
    alpha1 = numpyro.sample("alpha1", dist.Uniform(0.0, 1.0))
    beta1 = numpyro.sample("beta1", dist.Uniform(0.0, 1.0 - alpha1))
    numpyro.factor("flat_beta1", jnp.log1p(-alpha1))

    def step(variance: jax.Array, before: jax.Array) -> tuple[jax.Array, jax.Array]:
        variance = alpha0 + alpha1 * (before - mu) ** 2 + beta1 * variance
        return variance, variance

    _, variances = jax.lax.scan(step, jnp.asarray(first) ** 2, y[:-1])
    sds = jnp.sqrt(jnp.concatenate([jnp.asarray([first**2]), variances]))
    numpyro.sample("y", dist.Normal(mu, sds), obs=y)


def _covariance(x: jax.Array, alpha: jax.Array, rho: jax.Array, nugget: jax.Array) -> jax.Array:
    squares = (x[:, None] - x[None, :]) ** 2
    return alpha**2 * jnp.exp(-0.5 * squares / rho**2) + nugget * jnp.eye(len(x))


def gp_regr(x: jax.Array, y: jax.Array) -> None:
    """A Gaussian process with normal noise, integrated over the curve."""
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    covariance = _covariance(x, alpha, rho, sigma)
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance), obs=y)


def gp_pois_regr(x: jax.Array, k: jax.Array) -> None:
    """Counts whose log rate is a Gaussian process, in white noise."""
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    white = numpyro.sample("f_tilde", dist.Normal(0.0, 1.0).expand([len(x)]))
    factor = jnp.linalg.cholesky(_covariance(x, alpha, rho, jnp.asarray(1e-6)))
    f = numpyro.deterministic("f", factor @ white)
    numpyro.sample("k", dist.Poisson(jnp.exp(f)), obs=k)


def _ordered(name: str, prior: dist.Distribution, constraint: constraints.Constraint) -> jax.Array:
    values = numpyro.sample(name, dist.ImproperUniform(constraint, (), (2,)))
    numpyro.factor(f"{name}_prior", prior.log_prob(values).sum())
    return values


def _forward(log_emission: jax.Array, transition: jax.Array) -> jax.Array:
    """Log-likelihood of hidden states from log p(y_t | state): (n, k); all starts alike."""

    def step(log_state: jax.Array, emission: jax.Array) -> tuple[jax.Array, None]:
        moved = jax.scipy.special.logsumexp(log_state[:, None] + jnp.log(transition), 0)
        return moved + emission, None

    last, _ = jax.lax.scan(step, log_emission[0], log_emission[1:])
    return jax.scipy.special.logsumexp(last)


def _transition(first: jax.Array, second: jax.Array) -> jax.Array:
    rows = [
        numpyro.sample(name, dist.Dirichlet(weights))
        for name, weights in (("theta1", first), ("theta2", second))
    ]
    return jnp.stack(rows)


def hmm_example(y: jax.Array) -> None:
    """Two hidden states with normal emissions of unit sd."""
    transition = _transition(jnp.ones(2), jnp.ones(2))
    prior = dist.Normal(jnp.array([3.0, 10.0]), 1.0)
    mu = _ordered("mu", prior, constraints.positive_ordered_vector)
    emission = dist.Normal(mu, 1.0).log_prob(y[:, None])
    numpyro.factor("likelihood", _forward(emission, transition))


def hmm_drive_0(u: jax.Array, v: jax.Array, weights: jax.Array) -> None:
    """Drives to the basket: exponential emissions of two kinds."""
    transition = _transition(weights[0], weights[1])
    prior = dist.Normal(jnp.array([0.0, 3.0]), 1.0)
    phi = _ordered("phi", prior, constraints.positive_ordered_vector)
    rate = _ordered("lambda", prior, constraints.positive_ordered_vector)
    emission = dist.Exponential(phi).log_prob(u[:, None])
    emission = emission + dist.Exponential(rate).log_prob(v[:, None])
    numpyro.factor("likelihood", _forward(emission, transition))


def hmm_drive_1(u: jax.Array, v: jax.Array, weights: jax.Array, tau: float, rho: float) -> None:
    """Drives to the basket: normal emissions of two kinds."""
    transition = _transition(weights[0], weights[1])
    prior = dist.Normal(jnp.array([0.0, 3.0]), 1.0)
    phi = _ordered("phi", prior, constraints.ordered_vector)
    rate = _ordered("lambda", prior, constraints.ordered_vector)
    emission = dist.Normal(phi, tau).log_prob(u[:, None])
    emission = emission + dist.Normal(rate, rho).log_prob(v[:, None])
    numpyro.factor("likelihood", _forward(emission, transition))


def low_dim_gauss_mix(y: jax.Array) -> None:
    """A mixture of two normals in order."""
    mu = _ordered("mu", dist.Normal(0.0, 2.0), constraints.ordered_vector)
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    weights = dist.Categorical(probs=jnp.stack([theta, 1.0 - theta]))
    numpyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(mu, sigma)), obs=y)


def schools_centred(y: jax.Array, error: jax.Array) -> None:
    """The eight schools, centred."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([len(y)]))
    numpyro.sample("y", dist.Normal(theta, error), obs=y)


def schools_non_centred(y: jax.Array, error: jax.Array) -> None:
    """The eight schools, non-centred."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    trans = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0).expand([len(y)]))
    theta = numpyro.deterministic("theta", mu + tau * trans)
    numpyro.sample("y", dist.Normal(theta, error), obs=y)


def lotka_volterra(times: jax.Array, first: jax.Array, y: jax.Array) -> None:
    """Hares and lynxes."""
    scales = jnp.array([0.5, 0.05, 0.5, 0.05])
    prior = dist.TruncatedNormal(jnp.array([1.0, 0.05, 1.0, 0.05]), scales, low=0.0)
    theta = numpyro.sample("theta", prior)
    start = numpyro.sample("z_init", dist.LogNormal(jnp.log(10.0), 1.0).expand([2]))
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]))

    def speed(z: jax.Array, _: jax.Array, theta: jax.Array) -> jax.Array:
        hares, lynxes = z
        return jnp.stack(
            [
                (theta[0] - theta[1] * lynxes) * hares,
                (-theta[2] + theta[3] * hares) * lynxes,
            ]
        )

    path = odeint(speed, start, times, theta, rtol=1e-6, atol=1e-5, mxstep=1000)
    numpyro.sample("first", dist.LogNormal(jnp.log(start), sigma), obs=first)
    numpyro.sample("y", dist.LogNormal(jnp.log(path[1:]), sigma), obs=y)


def one_comp_mm_elim_abs(times: jax.Array, y: jax.Array, dose: float, volume: float) -> None:
    """First-order absorption, Michaelis-Menten elimination."""
    names = ("k_a", "K_m", "V_m")
    theta = jnp.stack([numpyro.sample(name, dist.HalfCauchy(1.0)) for name in names])
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1.0))

    def speed(concentration: jax.Array, time: jax.Array, theta: jax.Array) -> jax.Array:
        rate, half, fastest = theta
        gain = jnp.exp(-rate * time) * dose * rate / volume
        return gain - fastest / volume * concentration / (half + concentration)

    path = odeint(speed, jnp.zeros(()), times, theta, rtol=1e-6, atol=1e-6, mxstep=1000)
    numpyro.sample("y", dist.LogNormal(jnp.log(path[1:]), sigma), obs=y)


def _ark(data: Data) -> Data:
    y, order = jnp.asarray(data["y"]), data["K"]
    lags = [y[order - k : len(y) - k] for k in range(1, order + 1)]
    return {"lags": jnp.stack(lags, 1), "y": y[order:]}


def _pick(**names: str) -> Callable[[Data], Data]:
    return lambda data: {to: jnp.asarray(data[name]) for to, name in names.items()}


def _hares(data: Data) -> Data:
    times = jnp.concatenate([jnp.zeros(1), jnp.asarray(data["ts"], float)])
    return {"times": times, "first": jnp.asarray(data["y_init"]), "y": jnp.asarray(data["y"])}


def _doses(data: Data) -> Data:
    times = jnp.asarray([data["t0"], *data["times"]], float)
    return {"times": times, "y": jnp.asarray(data["C_hat"]), "dose": data["D"], "volume": data["V"]}


def _drive_1(data: Data) -> Data:
    parts = _pick(u="u", v="v", weights="alpha")(data)
    return {**parts, "tau": data["tau"], "rho": data["rho"]}


_SCHOOLS = _pick(y="y", error="sigma")
ENTRIES = (
    Entry("eight_schools-eight_schools_centered", schools_centred, _SCHOOLS),
    Entry("eight_schools-eight_schools_noncentered", schools_non_centred, _SCHOOLS),
    Entry("arK-arK", ark, _ark),
    Entry("arma-arma11", arma11, _pick(y="y")),
    Entry("garch-garch11", garch11, lambda d: {"y": jnp.asarray(d["y"]), "first": d["sigma1"]}),
    Entry("gp_pois_regr-gp_regr", gp_regr, _pick(x="x", y="y")),
    Entry("gp_pois_regr-gp_pois_regr", gp_pois_regr, _pick(x="x", k="k")),
    Entry("hmm_example-hmm_example", hmm_example, _pick(y="y")),
    Entry("bball_drive_event_0-hmm_drive_0", hmm_drive_0, _pick(u="u", v="v", weights="alpha")),
    Entry("bball_drive_event_1-hmm_drive_1", hmm_drive_1, _drive_1),
    Entry("low_dim_gauss_mix-low_dim_gauss_mix", low_dim_gauss_mix, _pick(y="y")),
    Entry("hudson_lynx_hare-lotka_volterra", lotka_volterra, _hares),
    Entry("one_comp_mm_elim_abs-one_comp_mm_elim_abs", one_comp_mm_elim_abs, _doses),
)
