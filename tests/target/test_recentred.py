"""Loc-scale sites in other coordinates: the same density, the same sites, the right ones chosen."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions.transforms import AffineTransform, ExpTransform, SigmoidTransform
from numpyro.infer import init_to_value
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

from numpyro_onestep.exploration import choose_centring
from numpyro_onestep.target import (
    build_target,
    constant_centredness,
    prior_draws,
    recentred,
    starting_points,
    users_points,
    users_target,
)

KEY = jax.random.key(0)
Y = jnp.array([0.3, -0.4, 1.1], jnp.float32)


def hierarchy(family, *, plated=True):
    """Three effects of a family, in a plate or as events."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.5, 1.0))
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        if plated:
            with numpyro.plate("n", 3):
                theta = numpyro.sample("theta", family(mu, tau))
                numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)
        else:
            theta = numpyro.sample("theta", family(mu, tau).expand([3]).to_event(1))
            numpyro.sample("y", dist.Normal(theta, 1.0).to_event(1), obs=y)
        numpyro.deterministic("total", theta.sum())

    return model


def stretched_log_normal(mu, tau):
    transforms = [AffineTransform(1.0, 2.0), ExpTransform()]
    return dist.TransformedDistribution(dist.Normal(mu, tau), transforms)


def nested(y):
    tau = numpyro.sample("tau", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("group", 2):
        mu = numpyro.sample("mu", dist.Normal(0.0, tau))
        sd = numpyro.sample("sd", dist.LogNormal(mu, 0.5 + tau))
    with numpyro.plate("group_", 2, dim=-1), numpyro.plate("row", 3, dim=-2):
        theta = numpyro.sample("theta", dist.Normal(mu, sd))
    numpyro.sample("y", dist.Normal(theta.sum(1), 1.0).to_event(1), obs=y)


def only_a_loc(y):
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    theta = numpyro.sample("theta", dist.Normal(x**2 * jnp.ones(3), 0.1).to_event(1))
    numpyro.sample("y", dist.Normal(theta, 1.0).to_event(1), obs=y)


def held_scale(y):
    tau = numpyro.param("tau", 2.0)
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(theta, 1.0).to_event(1), obs=y)


def enumerated(y):
    k = numpyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    theta = numpyro.sample("theta", dist.Normal(0.0, tau))
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Normal(theta + k, 1.0), obs=y)


FAMILIES = {
    "normal": dist.Normal,
    "student": lambda mu, tau: dist.StudentT(3.0, mu, tau),
    "cauchy": dist.Cauchy,
    "laplace": dist.Laplace,
    "gumbel": dist.Gumbel,
    "logistic": dist.Logistic,
    "soft_laplace": dist.SoftLaplace,
    "asymmetric": lambda mu, tau: dist.AsymmetricLaplace(mu, tau, 2.0),
    "log_normal": dist.LogNormal,
    "logit_normal": lambda mu, tau: dist.TransformedDistribution(
        dist.Normal(mu, tau), SigmoidTransform()
    ),
}


def families(y):
    """One site of each family, in a plate."""
    mu = numpyro.sample("mu", dist.Normal(0.5, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("n", 3):
        total = sum(numpyro.sample(name, family(mu, tau)) for name, family in FAMILIES.items())
        numpyro.sample("y", dist.Normal(total, 1.0), obs=y)


def multivariate(y):
    """Multivariate normals whose scale all groups share, or all rows of a group, or all events."""
    mu = numpyro.sample("mu", dist.Normal(0.5, 1.0))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([2]).to_event(1))
    corr = numpyro.sample("corr", dist.LKJCholesky(2, 2.0))
    tril = sd[:, None] * corr
    with numpyro.plate("group", 3):
        shared = numpyro.sample(
            "shared", dist.MultivariateNormal(mu * jnp.ones(2), scale_tril=tril)
        )
        wide = numpyro.sample("wide", dist.HalfNormal(1.0))
    with numpyro.plate("row", 2, dim=-2), numpyro.plate("group_", 3):
        covariance = wide[:, None, None] * jnp.array([[1.0, -0.5], [-0.5, 2.0]])
        rows = numpyro.sample("rows", dist.MultivariateNormal(0.0, covariance))
    pair = numpyro.sample("pair", dist.MultivariateNormal(jnp.zeros((2, 1, 2)), tril).to_event(2))
    total = (shared + rows.sum(0) + pair.sum((0, 1))).sum(-1)
    numpyro.sample("y", dist.Normal(total, 1.0).to_event(1), obs=y)


def walks(y):
    """Random walks: one, a batch of a shared scale, and one of a scale for each."""
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([2]).to_event(1))
    one = numpyro.sample("one", dist.GaussianRandomWalk(sd[0], 3))
    with numpyro.plate("two", 2):
        batch = numpyro.sample("batch", dist.GaussianRandomWalk(sd[1], 3))
        each = numpyro.sample("each", dist.GaussianRandomWalk(sd, 3))
    numpyro.sample("y", dist.Normal(one + batch.sum(0) + each.sum(0), 1.0).to_event(1), obs=y)


RECENTRED = {
    "families": (families, list(FAMILIES)),
    "events": (hierarchy(dist.Normal, plated=False), ["theta"]),
    "log-normal events": (hierarchy(dist.LogNormal, plated=False), ["theta"]),
    "nested": (nested, ["mu", "sd", "theta"]),
    "only a loc": (only_a_loc, ["theta"]),
    "held scale": (held_scale, ["theta"]),
    "enumerated": (enumerated, ["theta"]),
    "multivariate": (multivariate, ["shared", "rows", "pair"]),
    "random walks": (walks, ["one", "batch", "each"]),
}


@pytest.mark.parametrize("name", RECENTRED)
def test_the_same_density_and_the_same_sites(name):
    """Any centredness, elementwise: change of variables against automatic differentiation."""
    model, sites = RECENTRED[name]
    users = build_target(KEY, model, (Y,))
    assert list(users.program.loc_scale) == sites
    rng = np.random.default_rng(1)
    centredness = {
        site: jnp.asarray(rng.random(c.shape), jnp.float32)
        for site, c in constant_centredness(users, 1.0).items()
    }
    target = recentred(users, centredness)
    assert target.dim == users.dim and users_target(target).program is users.program
    u = jnp.asarray(rng.normal(size=(3, users.dim)), jnp.float32)

    @jax.jit
    def densities(users, target, u):
        x, log_det = users_points(target, u)
        jacobian = jax.vmap(jax.jacfwd(lambda point: users_points(target, point[None])[0][0]))(u)
        both = jax.vmap(users.log_density)(x), jax.vmap(target.log_density)(u)
        priors = jax.vmap(users.log_prior)(x), jax.vmap(target.log_prior)(u)
        return x, log_det, jnp.linalg.slogdet(jacobian)[1], both, priors

    x, log_det, by_autodiff, both, priors = densities(users, target, u)
    np.testing.assert_allclose(log_det, by_autodiff, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(both[1], both[0] + log_det, rtol=1e-3, atol=2e-3)
    # With discrete sites the prior holds a draw of them: the same in both.
    np.testing.assert_allclose(priors[1], priors[0] + log_det, rtol=1e-3, atol=2e-3)
    before, after = users.constrain(x), target.constrain(u)
    assert list(before) == list(after)
    for site, value in before.items():
        np.testing.assert_allclose(after[site], value, rtol=1e-4, atol=1e-5)


def fixed_scale(y):
    theta = numpyro.sample("theta", dist.Normal(0.0, 2.0).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(theta, jnp.exp(theta)).to_event(1), obs=y)


def scaled(y):
    with handlers.scale(scale=0.5):
        hierarchy(dist.Normal)(y)


def masked(y):
    with handlers.mask(mask=jnp.array([True, False, True])):
        hierarchy(dist.Normal)(y)


def by_component(y):
    k = numpyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
    theta = numpyro.sample("theta", dist.Normal(0.0, 1.0 + k))
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def moving_transform(mu, tau):
    return dist.TransformedDistribution(dist.Normal(0.0, 1.0), AffineTransform(mu, tau))


def walk(y):
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))

    def step(x, y):
        x = numpyro.sample("x", dist.Normal(x, tau))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
        return x, None

    scan(step, jnp.zeros(()), y)


def truncated(mu, tau):
    return dist.TruncatedNormal(mu, tau, low=0.0)


UNTOUCHED = {
    "reparametrised": handlers.reparam(
        hierarchy(dist.Normal), config={"theta": LocScaleReparam(0.0)}
    ),
    "partly reparametrised": handlers.reparam(
        hierarchy(dist.Normal), config={"theta": LocScaleReparam(0.5)}
    ),
    "transform reparametrised": handlers.reparam(
        hierarchy(dist.LogNormal), config={"theta": TransformReparam()}
    ),
    "no hierarchy": fixed_scale,
    "scaled": scaled,
    "masked": masked,
    "a scale by label": by_component,
    "two transforms": hierarchy(stretched_log_normal),
    "moving transform": hierarchy(moving_transform),
    "in a scan": walk,
    "bounded": hierarchy(truncated),
    "another family": hierarchy(lambda mu, tau: dist.Gamma(jnp.exp(mu), tau)),
    "conditioned": handlers.condition(hierarchy(dist.Normal), {"theta": Y}),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_what_stays_as_the_user_wrote_it(name):
    target = build_target(KEY, UNTOUCHED[name], (Y,))
    assert not target.program.loc_scale
    chosen = {} if target.program.scored else None
    assert choose_centring(target, KEY) == (chosen, (), 0)
    assert recentred(target, None) is target


def funnel():
    v = numpyro.sample("v", dist.Normal(0.0, 3.0))
    numpyro.sample("x", dist.Normal(0.0, jnp.exp(v / 2.0)).expand([9]).to_event(1))


def groups(y):
    """Groups `(n, rows)` of measurements of error 1."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(5.0))
    with numpyro.plate("group", y.shape[0]):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta[:, None], 1.0).to_event(1), obs=y)


def test_the_choice_follows_the_data():
    """A funnel without data is not centred, groups with many measurements are."""
    found = choose_centring(build_target(KEY, funnel), KEY)
    assert np.max(found.centredness["x"]) < 0.05
    # The bound is the evidence, 0: a normal after all.
    assert abs(found.fitted[0].bound) < 1e-3
    rng = np.random.default_rng(0)
    y = 2.0 * rng.normal(size=(10, 1)) + rng.normal(size=(10, 200))
    target = build_target(KEY, groups, (y,))
    found = choose_centring(target, KEY)
    assert np.min(found.centredness["theta"]) > 0.9
    again = choose_centring(target, KEY)
    np.testing.assert_array_equal(found.centredness["theta"], again.centredness["theta"])


def product():
    """Only the product of two positive values is known: a sum of logarithms."""
    a, b = (numpyro.sample(name, dist.HalfNormal(3.0)) for name in "ab")
    numpyro.sample("y", dist.Normal(a * b, 0.05), obs=2.0)


def positive():
    """Two values of which nothing is known."""
    numpyro.sample("a", dist.HalfNormal(3.0).expand([2]).to_event(1))


def test_normal_scores_give_way_where_logarithms_are_much_better():
    target = build_target(KEY, product)
    found = choose_centring(target, KEY)
    assert found.centredness is None
    assert found.fitted[0].spread < 0.1
    # The evidence by quadrature.
    assert abs(found.fitted[0].bound + 2.146) < 0.1
    # No second fit where there is nothing to gain.
    found = choose_centring(build_target(KEY, positive), KEY)
    assert found.centredness == {}
    assert found.num_gradients == 0
    assert found.fitted[0].spread < 1e-6


def test_starting_points_are_the_users():
    values = {"mu": 0.3, "tau": 0.7, "theta": jnp.array([1.0, 2.0, 3.0])}
    model = hierarchy(dist.LogNormal)
    users = build_target(KEY, model, (Y,), init_strategy=init_to_value(values=values))
    target = recentred(users, constant_centredness(users, 0.2))
    point = starting_points(target, KEY, 1)
    for site, value in values.items():
        np.testing.assert_allclose(target.constrain(point)[site][0], value, rtol=1e-5)
    latent, _ = prior_draws(users, KEY, 5)
    assert set(latent) == {"mu", "tau", "theta", "total"}


def test_new_data_and_pickles():
    users = build_target(KEY, groups, (np.ones((3, 4), np.float32),))
    other = users.with_data(np.zeros((3, 4), np.float32))
    one, two = (recentred(t, constant_centredness(t, 0.5)) for t in (users, other))
    # One program: what is compiled for one serves the other.
    assert one.program is two.program
    copy = pickle.loads(pickle.dumps(one))
    u = jnp.ones(users.dim)
    assert float(copy.log_density(u)) == float(one.log_density(u))
    assert float(one.log_density(u)) != float(two.log_density(u))


def test_the_centredness_of_other_sites_is_refused():
    users = build_target(KEY, hierarchy(dist.Normal), (Y,))
    with pytest.raises(ValueError, match=r"expected .* sites \['theta'\]; got that of \['eta'\]"):
        recentred(users, {"eta": jnp.zeros(3)})
