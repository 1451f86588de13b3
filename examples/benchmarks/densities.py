"""Analytic densities that sampler papers report, as NumPyro models without data.

Where the density is a normalised distribution the evidence is one. A density known only up to a
constant is a broad normal site times a `factor` that replaces it, so that the integral is kept.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.integrate import quad
from scipy.interpolate import interp1d


def funnel(*, dim: int = 10, scale: float = 3.0) -> None:
    """Neal's funnel: `v ~ N(0, scale)`, the others `N(0, exp(v / 2))`; log Z = 0."""
    v = numpyro.sample("v", dist.Normal(0.0, scale))
    with numpyro.plate("coordinate", dim - 1):
        numpyro.sample("x", dist.Normal(0.0, jnp.exp(0.5 * v)))


def gaussian_mixture(means: jax.Array, *, scale: float = 1.0) -> None:
    """Equal isotropic Gaussians at `means`: (components, d); log Z = 0."""
    weights = dist.Categorical(logits=jnp.zeros(means.shape[0]))
    components = dist.Normal(means, scale).to_event(1)
    numpyro.sample("x", dist.MixtureSameFamily(weights, components))


def student_mixture(means: jax.Array) -> None:
    """Equal products of t_2 densities at `means`: (components, d); log Z = 0."""
    weights = dist.Categorical(logits=jnp.zeros(means.shape[0]))
    components = dist.StudentT(2.0, means, 1.0).to_event(1)
    numpyro.sample("x", dist.MixtureSameFamily(weights, components))


def multi_well(*, dim: int = 5, wells: int = 5, offset: float = 4.0) -> None:
    """`exp(-sum_{i < wells} (x_i^2 - offset)^2 - 0.5 sum of the other squares)`.

    MW54 has five dimensions and offset 4, MW52 fifty and offset 2; five wells both.
    """
    x = numpyro.sample("x", dist.Normal(0.0, 2.0).expand([dim]).to_event(1))
    energy = jnp.sum((x[:wells] ** 2 - offset) ** 2) + 0.5 * jnp.sum(x[wells:] ** 2)
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


# Beyond this the densities of all wells are nothing in double precision.
_WELL_BOUND = 6.0


def _multi_well_coordinate(x: np.ndarray, offset: float) -> np.ndarray:
    return np.exp(-((x**2 - offset) ** 2))


def _many_well_coordinate(x: np.ndarray) -> np.ndarray:
    return np.exp(0.5 * x + 6.0 * x**2 - x**4)


def multi_well_log_z(*, dim: int = 5, wells: int = 5, offset: float = 4.0) -> float:
    """Log evidence of `multi_well`, by quadrature of one coordinate."""
    one, _ = quad(_multi_well_coordinate, -_WELL_BOUND, _WELL_BOUND, (offset,), points=(-2.0, 2.0))
    return float(wells * np.log(one) + 0.5 * (dim - wells) * np.log(2.0 * np.pi))


def many_well_log_z(*, pairs: int = 16) -> float:
    """Log evidence of `many_well`, by quadrature of one coordinate."""
    one, _ = quad(_many_well_coordinate, -_WELL_BOUND, _WELL_BOUND, points=(-1.7, 1.7))
    return float(pairs * (np.log(one) + 0.5 * np.log(2.0 * np.pi)))


def _inverse(
    density: Callable[..., np.ndarray], *args: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Quantile function of a density of one coordinate, on a grid of step 0.00012."""
    grid = np.linspace(-_WELL_BOUND, _WELL_BOUND, 100_001)
    mass = np.concatenate([[0.0], np.cumsum(density(0.5 * (grid[1:] + grid[:-1]), *args))])
    inside = np.concatenate([[True], np.diff(mass) > 0.0])
    return interp1d(mass[inside] / mass[-1], grid[inside])


def multi_well_draws(
    seed: int, num: int, *, dim: int = 5, wells: int = 5, offset: float = 4.0
) -> dict[str, np.ndarray]:
    """Independent draws of `multi_well`, x: (num, dim)."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(num, dim))
    quantile = _inverse(_multi_well_coordinate, offset)
    x[:, :wells] = quantile(generator.uniform(size=(num, wells)))
    return {"x": x}


def many_well_draws(seed: int, num: int, *, pairs: int = 16) -> dict[str, np.ndarray]:
    """Independent draws of `many_well`, a and b: (num, pairs)."""
    generator = np.random.default_rng(seed)
    a = _inverse(_many_well_coordinate)(generator.uniform(size=(num, pairs)))
    return {"a": a, "b": generator.normal(size=(num, pairs))}
