"""Values standardised given all others: the same density, the same sites, found where they are."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_onestep.target import (
    build_target,
    conditional,
    constant_centredness,
    find_conditional,
    in_double,
    recentred,
    recentred_points,
    starting_points,
    unconditional,
    users_points,
    users_target,
)

KEY = jax.random.key(0)
Y = jnp.array([0.3, -0.4, 1.1, 0.2], jnp.float32)
SUBJECT = jnp.array([0, 0, 1, 1])


def errors_in_variables(y):
    """Quadratic in x given the rest: three values measured with an unknown error."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    error = numpyro.sample("error", dist.HalfNormal(0.5))
    with numpyro.plate("n", 4):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("measured", dist.Normal(x, error), obs=y)
        numpyro.sample("y", dist.Normal(slope * x, 0.5), obs=2.0 * y)


def hierarchy(y):
    """A loc-scale site with a centredness of its own, under a skewed likelihood."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    with numpyro.plate("n", 4):
        rate = numpyro.sample("rate", dist.LogNormal(mu, tau))
        numpyro.sample("y", dist.Exponential(rate), obs=jnp.abs(y))


def crossed(y):
    """Two sets of values that share observations; the larger one is independent by itself."""
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    row = numpyro.sample("row", dist.Normal(0.0, tau).expand([4]).to_event(1))
    column = numpyro.sample("column", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(row + column[SUBJECT], 0.5).to_event(1), obs=y)


def regression(y):
    """Coefficients that share observations."""
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, sigma).expand([4]).to_event(1))
    x = jnp.arange(4.0)[:, None] ** jnp.arange(4)
    numpyro.sample("y", dist.Normal(x @ beta, sigma).to_event(1), obs=y)


def walk(y):
    """Values that their own distribution ties to each other: not even looked at."""
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    level = numpyro.sample("level", dist.GaussianRandomWalk(sigma, num_steps=4))
    numpyro.sample("y", dist.Normal(level, 0.5).to_event(1), obs=y)


def far_from_concave(y):
    """Two observations that disagree: half-way there is a valley."""
    tau = numpyro.sample("tau", dist.HalfNormal(3.0))
    with numpyro.plate("n", 4):
        x = numpyro.sample("x", dist.Normal(0.0, 10.0 + tau))
        numpyro.sample("one", dist.Cauchy(x, 0.1), obs=y + 5.0)
        numpyro.sample("other", dist.Cauchy(x, 0.1), obs=y - 5.0)


def alone(y):
    """Values whose widths depend on nothing."""
    with numpyro.plate("n", 4):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def _double(x):
    return 2.0 * np.asarray(x)


@jax.custom_jvp
def opaque(x):
    return x**2


@opaque.defjvp
def _(primals, tangents):
    # As in code that leaves JAX: a derivative without a derivative of its own.
    slope = jax.pure_callback(_double, primals[0], primals[0], vmap_method="sequential")
    return opaque(primals[0]), slope * tangents[0]


def without_second_derivatives(y):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("n", 4):
        x = numpyro.sample("x", dist.Normal(0.0, tau))
        numpyro.sample("y", dist.Normal(opaque(x), 1.0), obs=y)


@jax.jit
def density(target, points):
    return jax.vmap(target.log_density)(points)


def found_in(model, c=0.7, least_spread=0.0):
    """The model's target in recentred coordinates, points in those, and what is found."""
    users = build_target(KEY, model, (Y,))
    target = recentred(users, constant_centredness(users, c))
    points = np.asarray(0.5 * starting_points(target, KEY, 32))
    given, num_gradients = find_conditional(target, points, least_spread)
    return target, jnp.asarray(points), given, num_gradients


@pytest.fixture(scope="module", params=[errors_in_variables, hierarchy])
def standardised(request):
    target, points, given, _ = found_in(request.param)
    return target, conditional(target, given), points


def test_the_density_is_that_of_the_model_times_the_volume(standardised):
    target, other, u = standardised
    x, log_det = users_points(other, u)
    users = users_target(other)
    there = density(users, x)
    np.testing.assert_allclose(density(other, u), there + log_det, atol=1e-4)

    def one(u):
        return users_points(other, u[None])[0][0]

    _, by_jacobian = jnp.linalg.slogdet(jax.jit(jax.vmap(jax.jacfwd(one)))(u))
    np.testing.assert_allclose(log_det, by_jacobian, atol=1e-4)


def test_there_and_back(standardised):
    target, other, u = standardised
    x, _ = users_points(other, u)
    np.testing.assert_allclose(recentred_points(other, x), u, atol=1e-4)
    assert unconditional(other).program is target.program
    assert unconditional(target) is target


def test_sites_and_their_support_are_the_models(standardised):
    _, other, u = standardised
    x, _ = users_points(other, u)
    sites, wanted = other.constrain(u), users_target(other).constrain(x)
    assert set(sites) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(sites[name], values, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def measured():
    target, points, given, _ = found_in(errors_in_variables)
    return target, conditional(target, given), points, given


def test_double_precision_says_the_same(measured):
    _, other, u, _ = measured
    narrow, wide = (density(t, u) for t in (other, in_double(other)))
    np.testing.assert_allclose(narrow, wide, rtol=1e-4, atol=1e-4)


def test_a_quadratic_density_leaves_standard_normals(measured):
    """Whatever the others are, and however narrow the values become."""
    target, other, points, _ = measured
    part = target.site_slices["x"]
    narrow = points.at[:, target.site_slices["error_decentered"]].set(-4.0)
    for at in (points, narrow):
        rest = density(other, at) + 0.5 * (at[:, part] ** 2).sum(1)
        moved = at.at[:, part].set(jax.random.normal(KEY, at[:, part].shape))
        again = density(other, moved) + 0.5 * (moved[:, part] ** 2).sum(1)
        np.testing.assert_allclose(again, rest, atol=2e-2)
    error = other.constrain(narrow)["error"]
    assert error.max() < 1e-4


@pytest.mark.parametrize(
    ("model", "sites"),
    [
        (errors_in_variables, ("x",)),
        (hierarchy, ("rate_decentered",)),
        (crossed, ("row_decentered",)),
        (regression, None),
        (walk, None),
        (far_from_concave, None),
        (without_second_derivatives, None),
    ],
)
def test_finds_values_that_are_independent_given_the_others(model, sites):
    _, points, given, num_gradients = found_in(model)
    assert (None if given is None else given.sites) == sites
    assert (num_gradients == 0) == (model in (walk, without_second_derivatives))
    if given is not None:
        assert num_gradients == 2 * 3 * len(points)
        assert given.centre.shape == given.precision.shape
        assert (np.asarray(given.precision) > 0.0).all()


def test_nothing_where_widths_do_not_change():
    assert found_in(alone, least_spread=0.1)[2] is None
    assert found_in(errors_in_variables, least_spread=0.1)[2] is not None
    assert found_in(errors_in_variables, least_spread=1e3)[2] is None


def test_one_program_per_model_and_sites(measured):
    """So that JAX compiles once for all data."""
    target, _, points, given = measured
    shifted = given.replace(centre=given.centre + 1.0)
    programs = {conditional(target, g).program for g in (given, shifted)}
    assert len(programs) == 1
    assert conditional(target, None) is target
    moved = [users_points(conditional(target, g), points)[0] for g in (given, shifted)]
    # Quadratic: a step of Newton leads to one place from anywhere.
    np.testing.assert_allclose(*moved, atol=1e-3)
