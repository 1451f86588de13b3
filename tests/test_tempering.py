"""The survey of the prior and the tempering of its draws to the posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from explored import Y, conjugate, flat, hidden
from scipy import stats

from numpyro_onestep import exploration
from numpyro_onestep.exploration import explore, survey, temper
from numpyro_onestep.target import build_target, constant_centredness, recentred, users_points


def many_data(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)


def hierarchy(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("group", len(y)):
        level = numpyro.sample("level", dist.Normal(0.0, scale))
        with numpyro.plate("value", y.shape[1]):
            numpyro.sample("y", dist.Normal(level, 1.0), obs=y.T)


class NoSample(dist.Normal):
    def sample(self, key, sample_shape=()):
        raise NotImplementedError


def without_sample():
    numpyro.sample("x", NoSample(0.0, 1.0))


@pytest.fixture(scope="module")
def target():
    return build_target(jax.random.key(0), conjugate, (Y,))


def test_prior_points_follow_the_prior(target):
    """Kolmogorov's test of each coordinate at 1e-4."""
    points = np.asarray(target.prior_points(jax.random.key(1), 2000))
    for part, prior in ((target.site_slices["mu"], stats.norm(0, 10)),):
        for column in points[:, part].T:
            assert stats.kstest(column, prior.cdf).pvalue > 1e-4
    scale = np.exp(points[:, target.site_slices["scale"]].ravel())
    assert stats.kstest(scale, stats.gamma(2.0).cdf).pvalue > 1e-4


def test_log_prior(target):
    x = jnp.array([1.0, -3.0, 20.0, 0.3])
    order = target.site_slices
    assert order["mu"] == slice(0, 3) and order["scale"] == slice(3, 4)
    expected = stats.norm(0, 10).logpdf([1.0, -3.0, 20.0]).sum()
    # The Jacobian of the exponential adds the coordinate itself.
    expected += stats.gamma(2.0).logpdf(np.exp(0.3)) + 0.3
    assert float(target.log_prior(x)) == pytest.approx(expected, abs=1e-4)


def without_prior_of_a_scale():
    scale = dist.ImproperUniform(dist.constraints.positive, (), ())
    numpyro.factor("f", dist.Gamma(3.0).log_prob(numpyro.sample("x", scale)))


def test_no_prior_of_a_scale_is_broad_in_its_logarithm():
    """Five units: e^100 would be nowhere."""
    target = build_target(jax.random.key(0), without_prior_of_a_scale)
    points = np.asarray(target.prior_points(jax.random.key(1), 500))
    assert abs(points.std() / 5.0 - 1.0) < 4.0 / np.sqrt(1000.0)
    expected = stats.norm(0, 5).logpdf(7.0)
    assert float(target.log_prior(jnp.array([7.0]))) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("model, args", [(flat, (5.0,)), (without_sample, ())])
def test_no_prior_is_broad(model, args):
    """A normal of 100 units in the place of a prior: its sd to four standard errors."""
    target = build_target(jax.random.key(0), model, args)
    points = np.asarray(target.prior_points(jax.random.key(1), 500))
    assert abs(points.std() / 100.0 - 1.0) < 4.0 / np.sqrt(1000.0)
    expected = stats.norm(0, 100).logpdf(7.0)
    assert float(target.log_prior(jnp.array([7.0]))) == pytest.approx(expected, abs=1e-4)


def test_tempering_arrives_at_the_posterior(target):
    """A prior a hundred times as wide; the particles are as good as a few hundred draws."""
    starts = target.initial_points(jax.random.key(0), 64)
    drawn = survey.survey(target, starts, jax.random.key(1))
    particles = temper(target, drawn, jax.random.key(2))
    assert float(particles.temperature) == 1.0
    mu = np.asarray(particles.points)[:, :3]
    precision = 1e2 + 1e-2
    assert np.all(np.abs(mu.mean(0) - Y * 1e2 / precision) < 0.02)
    assert np.all(np.abs(mu.std(0) * np.sqrt(precision) - 1.0) < 0.2)
    scale = np.exp(np.asarray(particles.points)[:, 3])
    posterior = stats.gamma(5.0, scale=1.0 / 3.0)
    assert abs(scale.mean() - posterior.mean()) < 0.15
    expected = jax.vmap(target.log_density)(particles.points)
    np.testing.assert_allclose(particles.log_density, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("centredness", [1.0, 0.3])
def test_particles_of_a_hierarchy_do_not_end_in_its_neck(centredness):
    """A scale above 120 sites: its particles are the posterior's, in whatever coordinates."""
    rng = np.random.default_rng(1)
    y = 0.5 * rng.normal(size=(120, 1)) + rng.normal(size=(120, 4))
    users = build_target(jax.random.key(0), hierarchy, (y.astype(np.float32),))
    target = recentred(users, constant_centredness(users, centredness))
    found = explore(target, jax.random.key(1), 1, 4)
    particles = found.particles
    assert particles.num_gradients > 50_000 and found.num_gradients > particles.num_gradients
    expected = jax.vmap(target.log_density)(particles.points)
    np.testing.assert_allclose(particles.log_density, expected, atol=0.01, rtol=1e-4)
    # The scale by quadrature: means of groups are normal around zero.
    grid = np.linspace(0.005, 1.5, 2000)
    log_p = stats.halfnorm.logpdf(grid)
    log_p += stats.norm(0.0, np.hypot(grid, 0.5)[:, None]).logpdf(y.mean(1)).sum(1)
    p = np.exp(log_p - log_p.max())
    mean = np.average(grid, weights=p)
    sd = np.sqrt(np.average((grid - mean) ** 2, weights=p))
    x, _ = users_points(target, jnp.asarray(particles.points))
    scale = np.asarray(users.constrain(np.asarray(x))["scale"])
    # Moves along differences leave it four deviations off.
    assert abs(scale.mean() - mean) < 0.75 * sd
    assert 0.5 < scale.std() / sd < 1.5


def test_survey(target):
    """Initial points first, draws of the prior then; a cheap model has as many as there may be."""
    starts = target.initial_points(jax.random.key(0), 64)
    drawn = survey.survey(target, starts, jax.random.key(1))
    assert drawn.points.shape == (2**18, 4)
    np.testing.assert_array_equal(drawn.points[:64], starts)
    some = jnp.asarray(drawn.points[::4000])
    np.testing.assert_allclose(drawn.log_prior[::4000], jax.vmap(target.log_prior)(some), rtol=1e-4)
    np.testing.assert_allclose(
        drawn.log_density[::4000], jax.vmap(target.log_density)(some), rtol=1e-4
    )
    # Kolmogorov's test at 1e-4: no block of draws comes twice.
    assert stats.kstest(drawn.points[64::7, 0], stats.norm(0, 10).cdf).pvalue > 1e-4
    assert len(np.unique(drawn.points, axis=0)) == 2**18


@pytest.fixture(scope="module")
def expensive():
    """A model of 20,000 observations, and its survey."""
    y = np.random.default_rng(0).normal(size=(20_000, 3))
    target = build_target(jax.random.key(0), many_data, (y,))
    starts = target.initial_points(jax.random.key(0), 64)
    return y, target, survey.survey(target, starts, jax.random.key(1))


def test_survey_of_an_expensive_model_is_small(expensive):
    _, target, drawn = expensive
    cost = survey.values_computed(_drawing(target))
    assert len(drawn.points) == 1024 * (2**29 // cost or 1)
    assert 1024 <= len(drawn.points) <= 4096


@pytest.mark.slow
def test_tempering_of_an_expensive_model_is_short(expensive):
    y, target, drawn = expensive
    # Sweeps of half of the 1024 particles.
    particles = temper(target, drawn, jax.random.key(2))
    assert particles.temperature == 1.0 and len(particles.points) == 1024
    num_sweeps = drawn.num_affordable // 64
    assert 4 <= num_sweeps < 16
    assert (particles.num_densities - len(drawn.points)) % (num_sweeps * 512) == 0
    mean = y.mean(axis=0) * len(y) / (len(y) + 1)
    error = (particles.points.mean(axis=0) - mean) * len(y) ** 0.5
    # Standard deviations of the posterior, as a few hundred independent draws would allow.
    assert np.abs(error).max() < 0.3
    assert np.abs(particles.points.std(axis=0) * len(y) ** 0.5 - 1.0).max() < 0.2


def _drawing(target):
    """The program that draws 1024 points with their densities."""
    starts = target.initial_points(jax.random.key(0), 64)
    return jax.make_jaxpr(survey._draw)(target, starts, jax.random.key(1), 0).jaxpr


def test_values_computed():
    def program(a, x):
        looped = jax.lax.fori_loop(0, 7, lambda i, v: v * v, x)
        return jax.jit(jnp.exp)(a @ x) + looped.sum()

    jaxpr = jax.make_jaxpr(program)(jnp.zeros((3, 5)), jnp.zeros(5)).jaxpr
    # 15 products, 3 exponentials, a sum and 3 additions; the loop multiplies 5 values and counts
    # its rounds, 7 times.
    found = survey.values_computed(jaxpr)
    assert 15 + 3 + 1 + 3 + 7 * 5 <= found <= 15 + 3 + 1 + 3 + 7 * (5 + 2) + 5
    # Both halves of the symmetric input are averaged first.
    factor = jax.make_jaxpr(jnp.linalg.cholesky)(jnp.eye(10)).jaxpr
    assert 1000 <= survey.values_computed(factor) <= 2000
    python = jax.make_jaxpr(lambda x: jax.pure_callback(np.sin, x, x))(jnp.ones(3)).jaxpr
    assert survey.values_computed(python) > 1e5


def test_prior_draws_without_a_place_are_left_out_before_tempering(monkeypatch):
    """A prior may overflow in single precision."""
    survey_prior = exploration.modes.survey

    def overflowing(*args):
        surveyed = survey_prior(*args)
        points, log_density = np.array(surveyed.points), np.array(surveyed.log_density)
        points[::7], log_density[::7] = np.inf, -np.inf
        return surveyed._replace(points=points, log_density=log_density)

    monkeypatch.setattr(exploration.modes, "survey", overflowing)
    target = build_target(jax.random.key(0), hidden, (30.0,))
    found = explore(target, jax.random.key(1), 1, 64, deadline=0.0)
    assert not np.isfinite(found.particles.points).all()
    (fit,) = found.modes
    assert min(abs(float(fit.affine.mean[0]) - mode) for mode in (0.0, 30.0)) < 0.5
