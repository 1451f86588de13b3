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


# From draws, and from Hessians.
@pytest.fixture(scope="module", params=[20, 150])
def fit(request):
    mean, factor = ill_conditioned(request.param)
    target = build_target(jax.random.key(0), normal, (mean, factor))
    start = target.initial_points(jax.random.key(1), 1)[0]
    found = fit_gaussian(target, start, jnp.full(target.dim, START_SCALE), jax.random.key(2))
    return target, found.affine, np.asarray(found.elbo)


def test_recovers_the_mean_and_the_covariance(fit):
    target, affine, _ = fit
    mean, factor = ill_conditioned(target.dim)
    shift = np.linalg.solve(factor, np.asarray(affine.mean, np.float64) - mean)
    ratio = np.linalg.solve(factor, np.asarray(affine.factor, np.float64))
    # In standard deviations of the posterior, and as relative errors of scales along any direction.
    assert np.abs(shift).max() < 1e-3
    assert np.abs(np.linalg.svd(ratio, compute_uv=False) - 1.0).max() < 1e-3


def test_the_bound_is_tight(fit):
    """Equal to the log evidence, 0: its average up to 5 standard errors, each point exactly."""
    target, affine, elbo = fit
    assert elbo[0] < -100.0 or target.dim > 100
    last = elbo[-50:]
    assert abs(last.mean()) < 5.0 * last.std() / 50**0.5 + 1e-3 < 0.3
    z = jax.random.normal(jax.random.key(3), (100, target.dim))
    value = jax.vmap(lambda z: log_density(target, affine, z))(z)
    expected = -0.5 * (z**2).sum(1) - 0.5 * target.dim * np.log(2.0 * np.pi)
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


def log_scales(y, idle):
    """Scales with one measurement each: curved, of one mode; and sites that have no data."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    with numpyro.plate("n", 100):
        log_scale = numpyro.sample("log_scale", dist.Normal(mu, 1.0))
        if idle:
            numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(log_scale)), obs=y)


@pytest.mark.slow
def test_hessians_where_the_posterior_is_not_normal():
    """In 201 dimensions, the bound that draws reach in 101, those without the idle sites."""
    y = 2.0 * np.random.default_rng(0).normal(size=100)
    bounds = []
    for idle in (True, False):
        target = build_target(jax.random.key(0), log_scales, (y, idle))
        start = target.initial_points(jax.random.key(1), 1)[0]
        bounds.append(
            fit_gaussian(target, start, jnp.full_like(start, START_SCALE), jax.random.key(2)).bound
        )
    # A pair of Hessians per step is noisy where the curvature is: 100 sites, 0.005 nats each.
    assert abs(bounds[0] - bounds[1]) < 0.5


@jax.custom_vjp
def quadratic(x):
    return -0.5 * (x**2).sum()


def _backward(x, g):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    slope = jax.pure_callback(lambda x: -np.asarray(x), shape, x, vmap_method="broadcast_all")
    return (g * slope,)


quadratic.defvjp(lambda x: (quadratic(x), x), _backward)


def once_differentiable():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([150]).to_event(1))
    numpyro.factor("data", quadratic(x))


def test_scales_alone_without_hessians():
    """A gradient that Python computes: independent normals of variance 1/2, evidence 2^(-75)."""
    target = build_target(jax.random.key(0), once_differentiable)
    start = target.initial_points(jax.random.key(1), 1)[0]
    fit = fit_gaussian(target, start, jnp.full_like(start, START_SCALE), jax.random.key(2))
    assert fit.bound == pytest.approx(-75.0 * np.log(2.0), abs=0.01)
    np.testing.assert_allclose(fit.affine.factor, np.eye(150) / 2**0.5, atol=1e-3)


def regression(x, y):
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def skewed():
    """Far from normal: a curved ridge in two dimensions."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("b", dist.Normal(2.0 * a**2, 0.1))


def test_a_fit_takes_as_many_steps_as_it_needs():
    """A sixth of them where the posterior is nearly normal; its bound is as steady for another."""
    x = np.random.default_rng(0).normal(size=(2000, 3))
    y = (x.sum(axis=1) > 0.0).astype(float)
    num_gradients, bounds = [], []
    for model, args in ((regression, (x, y)), (regression, (x, 1.0 - y)), (skewed, ())):
        target = build_target(jax.random.key(0), model, args)
        start = target.initial_points(jax.random.key(1), 1)[0]
        found = fit_gaussian(target, start, jnp.full_like(start, START_SCALE), jax.random.key(2))
        num_gradients.append(int(found.num_gradients))
        bounds.append(found.bound)
        assert len(found.elbo) == 300 and np.isfinite(found.elbo).all()
    # Mirrored data have the same evidence; the noise of either fit is a few hundredths.
    assert bounds[0] == pytest.approx(bounds[1], abs=0.05)
    assert max(num_gradients[:2]) < 100 * 64 < 150 * 64 < num_gradients[2] <= 300 * 64
