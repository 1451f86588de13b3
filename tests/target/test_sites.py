"""Constrained sites against NumPyro's own, initial points, and names from plates."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import (
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)
from numpyro.infer.util import initialize_model

from numpyro_onestep.target import build_target

KEY = jax.random.key(0)
Y = np.array([0.1, 0.4, -0.2, 1.0])


def hierarchical(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    low = numpyro.sample("low", dist.Normal(0.0, 1.0))
    high = numpyro.sample("high", dist.Uniform(low, low + 1.0))
    pair = numpyro.sample("pair", dist.Uniform(jnp.zeros(2), jnp.exp(low)).to_event(1))
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("school", 4):
        theta = numpyro.sample("theta", dist.Normal(mu + high, tau))
        numpyro.deterministic("shifted", theta + share[0])
        numpyro.deterministic("total", theta.sum() + pair.sum())
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def mixture(y):
    with numpyro.plate("component", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 2.0))
    numpyro.deterministic("gap", loc[1] - loc[0])
    with numpyro.plate("n", len(y)):
        z = numpyro.sample(
            "z", dist.Categorical(jnp.array([0.4, 0.6])), infer={"enumerate": "parallel"}
        )
        numpyro.sample("y", dist.Normal(loc[z], 1.0), obs=y)


def random_walk(y):
    drift = numpyro.sample("drift", dist.Normal(0.0, 1.0))

    def step(x, value):
        x = numpyro.sample("x", dist.Normal(x + drift, 1.0))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=value)
        return x, None

    scan(step, 0.0, y)
    numpyro.deterministic("twice", 2 * drift)


MODELS = {"hierarchical": hierarchical, "mixture": mixture, "random_walk": random_walk}


@pytest.mark.parametrize("name", MODELS)
def test_density_and_sites_are_those_of_nuts(name):
    model = MODELS[name]
    target = build_target(KEY, model, (jnp.asarray(Y),))
    points = target.initial_points(KEY, 5)
    info = initialize_model(
        KEY, model, dynamic_args=True, model_args=(jnp.asarray(Y),), validate_grad=False
    )
    unconstrained = target.program.unravel(points)
    assert {k: v.shape[1:] for k, v in unconstrained.items()} == {
        k: jnp.shape(v) for k, v in info.param_info.z.items()
    }
    potential = jax.jit(jax.vmap(info.potential_fn(jnp.asarray(Y))))(unconstrained)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(target.log_density))(points), -potential, rtol=1e-4, atol=1e-4
    )
    # What MCMC.get_samples returns is this function of the unconstrained chain.
    expected = jax.jit(jax.vmap(info.postprocess_fn(jnp.asarray(Y))))(unconstrained)
    found = target.constrain(points)
    assert set(found) == set(expected)
    for site in found:
        assert found[site].dtype == expected[site].dtype
        np.testing.assert_allclose(found[site], expected[site], rtol=1e-4, atol=1e-5)
    assert "z" not in found
    np.testing.assert_allclose(target.unconstrain(found), points, atol=1e-3)


def test_chunks_join_seamlessly(monkeypatch):
    target = build_target(KEY, lambda: numpyro.sample("x", dist.Gamma(2.0, 1.0)))
    points = np.linspace(-2.0, 2.0, 11)[:, None]
    monkeypatch.setattr("numpyro_onestep.target.base._DRAWS_PER_CHUNK", 4)
    np.testing.assert_allclose(target.constrain(points)["x"], np.exp(points[:, 0]), rtol=1e-5)
    assert target.constrain(points[:0])["x"].shape == (0,)


def tau_model():
    numpyro.sample("mu", dist.Normal(3.0, 0.1))
    numpyro.sample("tau", dist.LogNormal(0.0, 0.1))


# strategy: (lowest, highest) value of tau that it can give, mu likewise
STRATEGIES = {
    "uniform": (init_to_uniform, (np.exp(-2), np.exp(2)), (-2, 2)),
    "uniform_partial": (init_to_uniform(radius=0.1), (np.exp(-0.1), np.exp(0.1)), (-0.1, 0.1)),
    "feasible": (init_to_feasible, (1.0, 1.0), (0.0, 0.0)),
    "median": (init_to_median(num_samples=9), (0.6, 1.6), (2.6, 3.4)),
    "mean": (init_to_mean, (1.0, 1.1), (3.0, 3.0)),
    "sample": (init_to_sample, (0.5, 2.0), (2.4, 3.6)),
    "value": (init_to_value(values={"tau": 4.0}), (4.0, 4.0), (-2, 2)),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", STRATEGIES)
def test_initial_points_follow_the_strategy(name, legacy):
    strategy, tau, mu = STRATEGIES[name]
    key = jax.random.PRNGKey(3) if legacy else jax.random.key(3)
    target = build_target(key, tau_model, init_strategy=strategy)
    points = target.initial_points(key, 20)
    assert points.shape == (20, 2)
    sites = target.constrain(points)
    tolerance = 1e-4
    assert np.all((sites["tau"] >= tau[0] - tolerance) & (sites["tau"] <= tau[1] + tolerance))
    assert np.all((sites["mu"] >= mu[0] - tolerance) & (sites["mu"] <= mu[1] + tolerance))
    if mu[1] - mu[0] > tolerance:
        assert np.std(sites["mu"]) > 0.01
    np.testing.assert_array_equal(points, target.initial_points(key, 20))


def test_only_valid_initial_points_are_returned():
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.factor("wall", jnp.where(x > 1.5, 0.0, -jnp.inf))

    points = build_target(KEY, model).initial_points(KEY, 40)
    assert points.shape == (40, 1)
    assert np.all(points > 1.5)


def test_the_prior_knows_a_support_that_uniform_points_miss():
    # The data decide where the density is: above the largest of them, exp(2) and more.
    data = jnp.array([3.0, 11.0, 16.0])

    def model():
        upper = numpyro.sample("upper", dist.HalfNormal(20.0))
        below = jnp.where(upper > data.max(), -len(data) * jnp.log(upper), -jnp.inf)
        numpyro.factor("uniform", below)

    points = build_target(KEY, model).initial_points(KEY, 5)
    assert np.all(np.exp(points) > 16.0)
    # A wish of the user's is not overruled.
    wish = {"upper": jnp.array(10.0)}
    with pytest.raises(ValueError, match="site 'uniform' has the log-density -inf"):
        build_target(KEY, model, init_strategy=init_to_value(values=wish))


def plates(x, y):
    with numpyro.plate("row", 3, dim=-2):
        numpyro.sample("a", dist.Normal(0.0, 1.0))
        with numpyro.plate("column", 4, dim=-1):
            b = numpyro.sample("b", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))
            numpyro.deterministic("norm", (b**2).sum(-1))
            numpyro.deterministic("scalar", b.sum())
            numpyro.sample("y", dist.Normal(b[..., 0] * x, 1.0), obs=y)
    with numpyro.plate("draw", 2):
        numpyro.sample("c", dist.Normal(0.0, 1.0))
    with numpyro.plate("inner", 4):
        numpyro.sample("d", dist.Normal(jnp.zeros((5, 4)), 1.0))
    numpyro.sample("free", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    numpyro.factor("extra", b.sum())


def test_names_from_plates():
    x, y = np.arange(12.0).reshape(3, 4), np.ones((3, 4))
    target = build_target(KEY, plates, (x,), {"y": y})
    assert target.dims == {
        "a": ["row"],
        "b": ["row", "column"],
        "norm": ["row", "column"],
        "y": ["row", "column"],
        "c": ["draw_plate"],
        "d": ["d_dim_0", "inner"],
    }
    assert {name: list(c) for name, c in target.coords.items()} == {
        "row": [0, 1, 2],
        "column": [0, 1, 2, 3],
        "draw_plate": [0, 1],
        "inner": [0, 1, 2, 3],
    }
    assert set(target.observed_data) == {"y"}
    assert set(target.constant_data) == {"x"}
    np.testing.assert_array_equal(target.constant_data["x"], x)
    assert target.site_slices["a"] == slice(0, 3)
    assert sum(part.stop - part.start for part in target.site_slices.values()) == target.dim
