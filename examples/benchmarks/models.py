"""The reference posteriors as NumPyro models; `suite` adds their data, truths and goals."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def eight_schools(sigma: jax.Array, y: jax.Array | None = None, *, centred: bool = False) -> None:
    """Effects of coaching in eight schools (Rubin 1981), partially pooled; 10 dimensions.

    Both parametrisations have the same evidence and the same posterior of mu, tau and theta.
    """
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", sigma.shape[0]):
        if centred:
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
        else:
            effect = numpyro.sample("effect", dist.Normal(0.0, 1.0))
            theta = numpyro.deterministic("theta", mu + tau * effect)
        numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def logistic_regression(
    x: jax.Array, y: jax.Array | None = None, *, prior_scale: float = 1.0, sign: float = 1.0
) -> None:
    """Bernoulli outcomes with logits `sign * x @ w`; x: (n, d) with its column of ones."""
    with numpyro.plate("feature", x.shape[1]):
        w = numpyro.sample("w", dist.Normal(0.0, prior_scale))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=sign * (x @ w)), obs=y)


def flat_logistic_regression(
    x: jax.Array, y: jax.Array | None = None, *, sign: float = 1.0
) -> None:
    """The same with the flat prior of some publications, which is improper: no evidence."""
    with numpyro.plate("feature", x.shape[1]):
        w = numpyro.sample("w", dist.ImproperUniform(dist.constraints.real, (), ()))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=sign * (x @ w)), obs=y)


def seeds(
    total: jax.Array, x1: jax.Array, x2: jax.Array, germinated: jax.Array | None = None
) -> None:
    """Germination on 21 plates, a random-effects logistic regression (Crowder 1978); 26-d."""
    tau = numpyro.sample("tau", dist.Gamma(0.01, 0.01))
    a0 = numpyro.sample("a0", dist.Normal(0.0, 10.0))
    a1 = numpyro.sample("a1", dist.Normal(0.0, 10.0))
    a2 = numpyro.sample("a2", dist.Normal(0.0, 10.0))
    a12 = numpyro.sample("a12", dist.Normal(0.0, 10.0))
    with numpyro.plate("dish", total.shape[0]):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0 / jnp.sqrt(tau)))
        logits = a0 + a1 * x1 + a2 * x2 + a12 * x1 * x2 + b
        numpyro.sample("germinated", dist.Binomial(total, logits=logits), obs=germinated)


def conjugate_regression(
    x: jax.Array,
    y: jax.Array | None = None,
    *,
    prior_scale: float,
    shape: float,
    rate: float,
) -> None:
    """Linear regression under the normal-inverse-gamma prior, whose evidence is analytic.

    `beta | sigma2 ~ N(0, prior_scale^2 sigma2 I)`, `sigma2 ~ InverseGamma(shape, rate)`.
    """
    sigma2 = numpyro.sample("sigma2", dist.InverseGamma(shape, rate))
    sigma = jnp.sqrt(sigma2)
    with numpyro.plate("feature", x.shape[1]):
        beta = numpyro.sample("beta", dist.Normal(0.0, prior_scale * sigma))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def normal_means(y: jax.Array | None = None, *, scale: float = 0.5) -> None:
    """Means with standard normal priors, each seen once with a normal error: all is analytic."""
    with numpyro.plate("unit", 2):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def known_noise(x: jax.Array, y: jax.Array | None = None) -> None:
    """Linear regression with unit noise and standard normal coefficients: a Gaussian posterior."""
    with numpyro.plate("feature", x.shape[1]):
        beta = numpyro.sample("beta", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ beta, 1.0), obs=y)


def brownian_motion(observed: jax.Array, y: jax.Array | None = None, *, steps: int = 30) -> None:
    """A random walk of `steps` with unknown scales, seen at the indices `observed`; 32-d."""
    innovation = numpyro.sample("innovation_scale", dist.LogNormal(0.0, 2.0))
    noise = numpyro.sample("observation_scale", dist.LogNormal(0.0, 2.0))
    walk = numpyro.sample("walk", dist.GaussianRandomWalk(innovation, steps))
    with numpyro.plate("time", observed.shape[0]):
        numpyro.sample("y", dist.Normal(walk[observed], noise), obs=y)


def horseshoe_regression(x: jax.Array, y: jax.Array | None = None) -> None:
    """Linear regression with the horseshoe prior (Carvalho et al. 2010); 2 p + 3 dimensions."""
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    with numpyro.plate("feature", x.shape[1]):
        local = numpyro.sample("lambda", dist.HalfCauchy(1.0))
        raw = numpyro.sample("raw", dist.Normal(0.0, 1.0))
        beta = numpyro.deterministic("beta", tau * local * raw)
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Normal(intercept + x @ beta, sigma), obs=y)
