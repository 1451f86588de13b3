"""Analytic densities that sampler papers report, as NumPyro models without data.

Where the density is a normalised distribution the evidence is one. A density known only up to a
constant is a broad normal site times a `factor` that replaces it, so that the integral is kept.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def funnel(*, dim: int = 10, scale: float = 3.0) -> None:
    """Neal's funnel: `v ~ N(0, scale)`, the others `N(0, exp(v / 2))`; log Z = 0."""
    v = numpyro.sample("v", dist.Normal(0.0, scale))
    with numpyro.plate("coordinate", dim - 1):
        numpyro.sample("x", dist.Normal(0.0, jnp.exp(0.5 * v)))


def gaussian_mixture(means: jax.Array) -> None:
    """Equal unit Gaussians at `means`: (components, d); log Z = 0."""
    weights = dist.Categorical(logits=jnp.zeros(means.shape[0]))
    components = dist.Normal(means, 1.0).to_event(1)
    numpyro.sample("x", dist.MixtureSameFamily(weights, components))


def student_mixture(means: jax.Array) -> None:
    """Equal products of t_2 densities at `means`: (components, d); log Z = 0."""
    weights = dist.Categorical(logits=jnp.zeros(means.shape[0]))
    components = dist.StudentT(2.0, means, 1.0).to_event(1)
    numpyro.sample("x", dist.MixtureSameFamily(weights, components))


def multi_well(*, dim: int = 5, wells: int = 5) -> None:
    """MW54: `exp(-sum_{i < wells} (x_i^2 - 4)^2 - 0.5 sum of the other squares)`."""
    x = numpyro.sample("x", dist.Normal(0.0, 2.0).expand([dim]).to_event(1))
    energy = jnp.sum((x[:wells] ** 2 - 4.0) ** 2) + 0.5 * jnp.sum(x[wells:] ** 2)
    numpyro.factor("wells", -energy - dist.Normal(0.0, 2.0).log_prob(x).sum())


def many_well(*, pairs: int = 16) -> None:
    """Independent pairs (a, b) of log-density `0.5 a + 6 a^2 - a^4 - 0.5 b^2`; 2 x pairs dims."""
    base = dist.Normal(0.0, 2.0)
    with numpyro.plate("pair", pairs):
        a = numpyro.sample("a", base)
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    wells = 0.5 * a + 6.0 * a**2 - a**4 - base.log_prob(a)
    # b has its own normalised density; the published one lacks the constant.
    constant = -0.5 * b**2 - dist.Normal(0.0, 1.0).log_prob(b)
    numpyro.factor("wells", jnp.sum(wells + constant))


def log_gaussian_cox(counts: jax.Array, factor: jax.Array, *, mean: float) -> None:
    """Log-Gaussian Cox process on a square grid; counts: (m, m) points per cell; m^2 dims.

    The field is whitened by `factor`, the Cholesky factor of its covariance: (m^2, m^2). That
    leaves the evidence and the posterior of `field` as they are.
    """
    cells = counts.size
    with numpyro.plate("cell", cells):
        white = numpyro.sample("white", dist.Normal(0.0, 1.0))
    field = numpyro.deterministic("field", mean + factor @ white)
    # The published likelihood leaves out the factorials of the counts.
    numpyro.factor("points", jnp.sum(field * counts.reshape(-1) - jnp.exp(field) / cells))
