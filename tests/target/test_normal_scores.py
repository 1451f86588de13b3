"""Sites in the normal scores of their prior: right in both tails, and the same density."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy import stats
from scipy.special import ndtri_exp

from numpyro_onestep.target import (
    build_target,
    centredness_of,
    constant_centredness,
    recentred,
    recentred_points,
    starting_points,
    users_points,
)
from numpyro_onestep.target.normal_scores import score_of, value_at

KEY = jax.random.key(0)
Y = jnp.array([0.3, -0.4, 1.1], jnp.float32)
FAMILIES = {
    "Cauchy": (dist.Cauchy(1.0, 2.0), stats.cauchy(1.0, 2.0)),
    "Exponential": (dist.Exponential(4.0), stats.expon(scale=0.25)),
    "HalfCauchy": (dist.HalfCauchy(5.0), stats.halfcauchy(scale=5.0)),
    "HalfNormal": (dist.HalfNormal(2.0), stats.halfnorm(scale=2.0)),
    "Laplace": (dist.Laplace(1.0, 2.0), stats.laplace(1.0, 2.0)),
    "Logistic": (dist.Logistic(1.0, 2.0), stats.logistic(1.0, 2.0)),
    "Uniform": (dist.Uniform(0.0, 3.0), stats.uniform(0.0, 3.0)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_values_keep_their_digits_in_both_tails(name):
    fn, reference = FAMILIES[name]
    # The right end of a uniform is a number that float32 cannot come close to.
    scores = np.array(
        [-8.0, -5.0, -2.0, -1e-3, 0.0, 1e-3, 2.0, *([] if name == "Uniform" else [5.0, 8.0])]
    )
    values = value_at(fn, jnp.asarray(scores, jnp.float32))
    # Where a distribution does not begin at zero, its values are differences.
    low = reference.ppf(stats.norm.cdf(scores))
    # SciPy's own left tail of a half-normal loses its digits.
    if name == "HalfNormal":
        low = 2.0 * np.sqrt(2.0) * stats.norm.cdf(scores) * np.sqrt(np.pi) / 2.0
        low = np.where(scores < -4.0, low, reference.ppf(stats.norm.cdf(scores)))
    wanted = np.where(scores < 0.0, low, reference.isf(stats.norm.sf(scores)))
    np.testing.assert_allclose(values, wanted, rtol=2e-5, atol=1e-30)
    np.testing.assert_allclose(score_of(fn, values), scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_derivatives_are_finite_however_far_out(name):
    fn, _ = FAMILIES[name]
    scores = jnp.array([-40.0, -13.0, -1.0, 0.0, 1.0, 13.0, 40.0])
    first = jax.vmap(jax.grad(lambda v: value_at(fn, v)))(scores)
    second = jax.vmap(jax.hessian(lambda v: value_at(fn, v)))(scores)
    assert np.isfinite(first).all() and np.isfinite(second).all()
    # Away from the median, where the density of a Laplace distribution has its edge.
    step, near = 1e-2, scores[2:5:2]
    both = value_at(fn, near + step), value_at(fn, near - step)
    np.testing.assert_allclose(first[2:5:2], (both[0] - both[1]) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_slope_at_the_median_itself(name):
    """Where both tails are equal: a density of the score over that of the value."""
    fn, reference = FAMILIES[name]
    slope = jax.grad(lambda v: value_at(fn, v))(0.0)
    expected = stats.norm.pdf(0.0) / reference.pdf(reference.median())
    assert float(slope) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("double", "rtol"), [(False, 1e-6), (True, 1e-11)])
def test_scores_of_probabilities_that_underflow(double, rtol):
    """The right tail of an exponential distribution is the exponential of the value itself."""
    values = np.logspace(0.0, 6.0, 200)
    with jax.enable_x64(double):
        fn = dist.Exponential(1.0)
        scores = np.asarray(score_of(fn, jnp.asarray(values)), np.float64)
        slopes = np.asarray(jax.vmap(jax.grad(lambda x: score_of(fn, x)))(jnp.asarray(values)))
    expected = -ndtri_exp(-values)
    np.testing.assert_allclose(scores, expected, rtol=rtol)
    # By the derivative of the inverse: the probability over the normal density.
    by_hand = np.exp(-values - stats.norm.logpdf(expected))
    near = values < 1e3
    np.testing.assert_allclose(slopes[near], by_hand[near], rtol=1e3 * rtol)


def all_families(y):
    """One site of each family: in a plate, as events, on its own."""
    names = list(FAMILIES)
    with numpyro.plate("n", 3):
        total = sum(numpyro.sample(name, FAMILIES[name][0]) for name in names[:3])
    events = dist.HalfNormal(jnp.array([1.0, 2.0, 3.0])).expand([3]).to_event(1)
    total += numpyro.sample(names[3], events)
    total += sum(numpyro.sample(name, FAMILIES[name][0]) for name in names[4:])
    numpyro.sample("y", dist.Normal(total, 1.0).to_event(1), obs=y)


def under_a_hierarchy(y):
    """A scored scale above a site with a centredness of its own."""
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    with numpyro.plate("n", 3):
        theta = numpyro.sample("theta", dist.Normal(0.0, tau))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def with_bounds_from_data(y):
    x = numpyro.sample("x", dist.Uniform(y.min(), y.max()))
    numpyro.sample("y", dist.Normal(x, 1.0).expand([3]).to_event(1), obs=y)


MODELS = {
    "all families": (all_families, tuple(FAMILIES)),
    "under a hierarchy": (under_a_hierarchy, ("tau",)),
    "bounds from data": (with_bounds_from_data, ("x",)),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param("all families", marks=pytest.mark.slow), "under a hierarchy", "bounds from data"],
)
def test_density_and_sites_are_those_of_the_users_model(name):
    """The change of variables, with automatic differentiation's Jacobian."""
    model, scored = MODELS[name]
    users = build_target(KEY, model, (Y,))
    assert users.program.scored == scored
    target = recentred(users, constant_centredness(users, 0.3))
    u = jax.random.normal(KEY, (4, users.dim))
    x, log_det = users_points(target, u)
    np.testing.assert_allclose(recentred_points(target, x), u, rtol=1e-4, atol=1e-4)
    jacobian = jax.vmap(jax.jacobian(lambda u: users_points(target, u[None])[0][0]))(u)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-3, atol=1e-3)
    before, after = (jax.vmap(t.log_density)(p) for t, p in ((users, x), (target, u)))
    np.testing.assert_allclose(after, before + log_det, rtol=1e-4, atol=1e-3)
    sites, same = users.constrain(x), target.constrain(u)
    assert list(sites) == list(same)
    for site, value in sites.items():
        np.testing.assert_allclose(same[site], value, rtol=1e-4, atol=1e-5)


def test_a_prior_alone_is_a_normal():
    """Whatever its tails were."""

    def model():
        numpyro.sample("scale", dist.HalfCauchy(1.0))
        numpyro.sample("shift", dist.Cauchy(3.0, 0.1).expand([2]).to_event(1))

    users = build_target(KEY, model)
    target = recentred(users, {})
    assert centredness_of(target) == {} and centredness_of(users) is None
    u = 3.0 * jax.random.normal(KEY, (100, 3))
    normal = dist.Normal(0.0, 1.0).log_prob(u).sum(axis=1)
    np.testing.assert_allclose(jax.vmap(target.log_density)(u), normal, rtol=1e-5)
    assert np.isfinite(starting_points(target, KEY, 16)).all()


def of_another_site(y):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("x", dist.Exponential(rate))
    numpyro.sample("y", dist.Normal(rate, 1.0).expand([3]).to_event(1), obs=y)


def scaled(y):
    with handlers.scale(scale=0.5):
        x = numpyro.sample("x", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(x, 1.0).expand([3]).to_event(1), obs=y)


def masked(y):
    with numpyro.plate("n", 3), handlers.mask(mask=jnp.array([True, False, True])):
        x = numpyro.sample("x", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


@pytest.mark.parametrize("model", [of_another_site, scaled, masked])
def test_what_keeps_its_coordinates(model):
    assert build_target(KEY, model, (Y,)).program.scored == ()
