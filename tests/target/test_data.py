"""Data as leaves: no retracing, new data, models that cannot be traced, pickling, precision."""

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from numpyro_onestep.target import build_target

KEY = jax.random.key(0)
X = np.linspace(-1.0, 1.0, 6)
Y = np.array([0.1, 0.4, -0.2, 1.0, 0.7, 1.3])
GROUP = np.array([0, 0, 1, 1, 2, 2])
CALLS = {"count": 0}


def model(x, y=None, degree=1):
    CALLS["count"] += 1
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(degree + 1), 1.0).to_event(1))
    mean = sum(weights[k] * x**k for k in range(degree + 1))
    with numpyro.plate("n", x.shape[0]):
        numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)


@jax.jit
def density(target, x):
    return target.log_density(x)


def exact(weights, x, y):
    residual = (y - weights[0] - weights[1] * x) / 0.5
    prior = -0.5 * np.sum(np.square(weights)) - np.log(2 * np.pi)
    likelihood = np.sum(-0.5 * residual**2 - 0.5 * np.log(2 * np.pi) - np.log(0.5))
    return prior + likelihood


@pytest.fixture(scope="module")
def target():
    return build_target(KEY, model, (X,), {"y": Y})


def test_density_is_the_log_joint(target):
    weights = np.array([0.3, -0.6], np.float32)
    assert float(density(target, weights)) == pytest.approx(exact(weights, X, Y), abs=1e-4)


def test_building_traces_the_model_a_bounded_number_of_times():
    CALLS["count"] = 0
    build_target(KEY, model, (X,), {"y": Y})
    assert CALLS["count"] <= 12


def test_new_data_neither_retrace_nor_recompile(target):
    weights = np.array([0.3, -0.6], np.float32)
    density(target, weights)
    CALLS["count"] = 0
    replaced = jax.tree.map(lambda leaf: leaf + 1.0, target)
    assert float(density(replaced, weights)) == pytest.approx(
        exact(weights, X + 1, Y + 1), abs=1e-4
    )
    new = target.with_data(X * 2, y=Y - 1)
    assert float(density(new, weights)) == pytest.approx(exact(weights, X * 2, Y - 1), abs=1e-4)
    assert CALLS["count"] == 0
    np.testing.assert_allclose(new.observed_data["y"], Y - 1, rtol=1e-6)
    np.testing.assert_allclose(new.constant_data["x"], X * 2, rtol=1e-6)
    assert new.digest != target.digest
    assert target.with_data(X, y=Y).digest == target.digest


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((X[:5],), {"y": Y}, r"argument 'x' to have shape \(6,\).*got shape \(5,\)"),
        ((X,), {"y": Y.astype(int)}, r"argument 'y' .* dtype float32; got .* dtype int32"),
        ((X,), {"y": None}, "same structure"),
        ((X,), {"y": Y, "degree": 1}, "same structure"),
        ((X,), {"y": 1.0}, "expected an array for the argument 'y'; got 1.0"),
    ],
)
def test_data_that_do_not_fit(target, args, kwargs, words):
    with pytest.raises(ValueError, match=words):
        target.with_data(*args, **kwargs)


def test_a_changed_constant_does_not_fit():
    target = build_target(KEY, model, (X, Y, 1))
    with pytest.raises(ValueError, match="argument 'degree' to be unchanged.*got 2"):
        target.with_data(X, Y, 2)


def grouped(group, y):
    size = len(np.unique(group))
    means = numpyro.sample("means", dist.Normal(jnp.zeros(size), 1.0).to_event(1))
    numpyro.sample("y", dist.Normal(means[group], 1.0).to_event(1), obs=y)


def test_index_arrays_that_fix_sizes_stay_constant():
    target = build_target(KEY, grouped, (GROUP, Y))
    assert [leaf.shape for leaf in target.data] == [(6,)]
    assert target.with_data(GROUP.copy(), Y + 1).observed_data["y"][0] == pytest.approx(1.1)
    with pytest.raises(ValueError, match="argument 'group' to be unchanged"):
        target.with_data(np.array([0, 1, 1, 1, 2, 2]), Y)


def needs_values(y):
    scale = 2.0 if bool(np.isnan(np.asarray(y)).any()) else 1.0
    mu = numpyro.sample("mu", dist.Normal(0.0, scale))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([6]).to_event(1), obs=y)


def test_model_that_needs_values_of_its_arguments():
    target = build_target(KEY, needs_values, (Y,))
    assert target.data == ()
    assert np.isfinite(density(target, jnp.zeros(1)))
    with pytest.raises(ValueError, match="argument 'y' to be unchanged"):
        target.with_data(Y + 1)


def asks_for_the_type(y):
    scale = 1.0 if isinstance(y, np.ndarray) else 5.0
    mu = numpyro.sample("mu", dist.Normal(0.0, scale))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([6]).to_event(1), obs=y)


def test_model_that_means_something_else_when_traced():
    target = build_target(KEY, asks_for_the_type, (Y,))
    residual = np.sum(-0.5 * Y**2 - 0.5 * np.log(2 * np.pi))
    expected = residual - 0.5 * np.log(2 * np.pi)
    assert float(density(target, jnp.zeros(1))) == pytest.approx(expected, abs=1e-4)


def test_nested_arguments():
    def nested(data, *, scale):
        mu = numpyro.sample("mu", dist.Normal(0.0, scale["prior"]))
        numpyro.sample("y", dist.Normal(mu, data["sd"]).to_event(1), obs=data["y"])

    target = build_target(KEY, nested, ({"sd": X + 2, "y": Y},), {"scale": {"prior": 2.0}})
    assert set(target.constant_data) == {"data_sd"}
    new = target.with_data({"sd": X + 3, "y": Y}, scale={"prior": 2.0})
    np.testing.assert_allclose(new.constant_data["data_sd"], X + 3, rtol=1e-6)
    with pytest.raises(ValueError, match=r"argument 'data'\['sd'\] to have shape"):
        target.with_data({"sd": X[:2], "y": Y}, scale={"prior": 2.0})


def test_pickled_target_is_the_same_target(target):
    points = target.initial_points(KEY, 3)
    copy = pickle.loads(pickle.dumps(target))
    assert float(density(copy, points[0])) == float(density(target, points[0]))
    assert copy.digest == target.digest
    assert copy.site_slices == target.site_slices
    np.testing.assert_array_equal(
        copy.with_data(X, y=Y).constrain(points)["weights"], target.constrain(points)["weights"]
    )


def test_pickled_target_with_a_handler():
    target = build_target(KEY, handlers.condition(model, {"y": Y}), (X,))
    copy = pickle.loads(pickle.dumps(target))
    assert float(density(copy, jnp.ones(2))) == float(density(target, jnp.ones(2)))


def test_double_precision():
    program = """
import jax, numpy as np, sys
sys.path.insert(0, sys.argv[1])
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
import test_data as t
target = t.build_target(jax.random.PRNGKey(0), t.model, (t.X,), {"y": t.Y})
weights = np.array([0.3, -0.6])
value = t.density(target, weights)
assert value.dtype == np.float64, value.dtype
assert abs(float(value) - t.exact(weights, t.X, t.Y)) < 1e-11
assert target.initial_points(jax.random.key(1), 2).dtype == np.float64
assert target.constrain(weights[None])["weights"].dtype == np.float64
assert target.observed_data["y"].dtype == np.float64
"""
    folder = __file__.rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
