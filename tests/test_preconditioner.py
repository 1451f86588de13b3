"""The Gaussian fit: exact for Gaussian posteriors in any units."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_onestep.preconditioner import START_SCALE, Affine, fit_gaussian, log_density
from numpyro_onestep.target import build_target


def normal(mean, factor):
    numpyro.sample("x", dist.MultivariateNormal(mean, scale_tril=factor))


def ill_conditioned(dim):
    """Scales from 1e-3 to 1e3, correlated; means up to some hundred sds from the start."""
    rng = np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(dim, dim)) / np.sqrt(dim), -1) + np.eye(dim)
    scale = np.logspace(-3.0, 3.0, dim)
    return scale * rng.normal(size=dim), scale[:, None] * factor


@pytest.fixture(scope="module")
def fit():
    mean, factor = ill_conditioned(20)
    target = build_target(jax.random.key(0), normal, (mean, factor))
    start = target.initial_points(jax.random.key(1), 1)[0]
    found = fit_gaussian(target, start, jnp.full(20, START_SCALE), jax.random.key(2))
    return target, found.affine, np.asarray(found.elbo)


def test_recovers_the_mean_and_the_covariance(fit):
    _, affine, _ = fit
    mean, factor = ill_conditioned(20)
    shift = np.linalg.solve(factor, np.asarray(affine.mean, np.float64) - mean)
    ratio = np.linalg.solve(factor, np.asarray(affine.factor, np.float64))
    # In standard deviations of the posterior, and as relative errors of scales along any direction.
    assert np.abs(shift).max() < 1e-3
    assert np.abs(np.linalg.svd(ratio, compute_uv=False) - 1.0).max() < 1e-3


def test_the_bound_is_tight(fit):
    """Equal to the log evidence, 0: its average up to 5 standard errors, each point exactly."""
    target, affine, elbo = fit
    assert elbo[0] < -100.0
    assert abs(elbo[-100:].mean()) < 5.0 * elbo[-100:].std() / 10.0 + 1e-4 < 0.3
    z = jax.random.normal(jax.random.key(3), (100, 20))
    value = jax.vmap(lambda z: log_density(target, affine, z))(z)
    expected = -0.5 * (z**2).sum(1) - 10.0 * np.log(2.0 * np.pi)
    np.testing.assert_allclose(value, expected, atol=2e-2)


def test_the_factor_is_triangular(fit):
    _, affine, _ = fit
    assert np.all(np.triu(affine.factor, 1) == 0.0)
    assert np.all(np.diagonal(affine.factor) > 0.0)


@pytest.mark.parametrize("shape", [(), (5,)])
def test_affine(shape):
    mean, factor = ill_conditioned(4)
    affine = Affine(jnp.asarray(mean), jnp.asarray(factor))
    z = np.random.default_rng(1).normal(size=(*shape, 4))
    x = affine.forward(jnp.asarray(z))
    np.testing.assert_allclose(x, mean + z @ factor.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(affine.inverse(x), z, rtol=1e-2, atol=1e-3)
    assert float(affine.log_det) == pytest.approx(np.linalg.slogdet(factor)[1], abs=1e-4)
