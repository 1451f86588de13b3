"""Bad models and data: a clear error that names the site."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import init_to_value

from numpyro_onestep.target import build_target
from numpyro_onestep.target.arguments import check_representable

KEY = jax.random.key(0)


def regression(x, y):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("n", len(y)):
        numpyro.sample("height", dist.Normal(slope * x, noise), obs=y)


def test_no_site():
    with pytest.raises(ValueError, match="without sample sites"):
        build_target(KEY, lambda: None)


def test_only_observed_sites():
    with pytest.raises(ValueError, match=r"only observed ones: \['y'\]"):
        build_target(KEY, lambda: numpyro.sample("y", dist.Normal(0.0, 1.0), obs=1.0))


def test_only_discrete_sites():
    with pytest.raises(ValueError, match=r"only discrete ones: \['z'\]"):
        build_target(KEY, lambda: numpyro.sample("z", dist.Bernoulli(0.5)))


def test_unbounded_discrete_site():
    def model():
        rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
        numpyro.sample("count", dist.Poisson(rate))

    with pytest.raises(RuntimeError, match="count does not have enumerate support"):
        build_target(KEY, model)


def test_discrete_site_without_funsor(monkeypatch):
    def model():
        p = numpyro.sample("p", dist.Beta(1.0, 1.0))
        numpyro.sample("label", dist.Bernoulli(p))

    monkeypatch.setitem(sys.modules, "funsor", None)
    with pytest.raises(ImportError, match=r"'label'.*pip install numpyro_onestep\[funsor\]"):
        build_target(KEY, model)


def test_subsampled_plate():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", 4, subsample_size=2) as index:
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[index])

    with pytest.raises(ValueError, match="do not support subsampling"):
        build_target(KEY, model, (jnp.ones(4),))


def test_delta_site():
    def model():
        numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("point", dist.Delta(1.0))

    with pytest.raises(ValueError, match="'point' has a delta distribution"):
        build_target(KEY, model)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "y"])
def test_value_not_finite_in_the_data(bad, where):
    data = {"x": np.arange(3.0), "y": np.arange(3.0)}
    data[where][1] = bad
    with pytest.raises(ValueError, match="site 'height' has the log-density"):
        build_target(KEY, regression, (), data)


def test_new_data_not_finite():
    target = build_target(KEY, regression, (np.arange(3.0), np.arange(3.0)))
    with pytest.raises(ValueError, match="site 'height'"):
        target.with_data(np.arange(3.0), np.array([0.0, np.nan, 1.0]))


def test_first_site_is_named():
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.factor("fine", x)
        numpyro.factor("broken", jnp.log(-1.0 - x**2))
        numpyro.factor("also_broken", jnp.log(-2.0 - x**2))

    with pytest.raises(ValueError, match="site 'broken'"):
        build_target(KEY, model)


@pytest.mark.parametrize("scale", [np.nan, -1.0])
def test_parameter_that_numpyro_refuses(scale):
    def model(scale):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, scale), obs=1.0)

    # NumPyro before 0.22 validates on request only.
    with (
        numpyro.validation_enabled(),
        pytest.raises(ValueError, match="site 'y': Normal distribution got invalid scale"),
    ):
        build_target(KEY, model, (np.array(scale),))


def test_data_outside_the_support():
    def model(y):
        high = numpyro.sample("high", dist.Uniform(0.0, 2.0))
        numpyro.sample("y", dist.Uniform(0.0, high), obs=y)

    # NumPyro before 0.22 validates on request only.
    with (
        numpyro.validation_enabled(),
        pytest.raises(ValueError, match="site 'y' has the log-density -inf"),
    ):
        build_target(KEY, model, (jnp.array(5.0),))


def test_gradient_not_finite():
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.factor("kink", jnp.where(True, 0.0, 1.0) * jnp.sqrt(x - x))

    with pytest.raises(ValueError, match="gradient of site 'kink'"):
        build_target(KEY, model)


def test_initial_value_outside_the_support():
    strategy = init_to_value(values={"slope": 0.0, "noise": -1.0})
    with pytest.raises(ValueError, match="initial value of site 'noise'"):
        build_target(KEY, regression, (np.ones(3), np.ones(3)), init_strategy=strategy)


def test_numpyro_error_of_a_model_is_not_swallowed():
    def model(x):
        numpyro.sample("x", dist.Normal(x, 1.0))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        build_target(KEY, model, (np.ones(2),))


@pytest.fixture(scope="module")
def target():
    return build_target(KEY, regression, (np.arange(3.0), np.arange(3.0)))


def test_points_of_another_shape(target):
    with pytest.raises(ValueError, match=r"expected points of shape \(n, 2\); got \(2,\)"):
        target.constrain(np.zeros(2))


def test_missing_latent_site(target):
    with pytest.raises(ValueError, match=r"got none of \['noise'\]"):
        target.unconstrain({"slope": 0.0})


def test_latent_site_of_another_shape(target):
    with pytest.raises(ValueError, match="one batch shape"):
        target.unconstrain({"slope": np.zeros(2), "noise": 1.0})


def test_no_points(target):
    with pytest.raises(ValueError, match="at least one initial point; got 0"):
        target.initial_points(KEY, 0)


LOST = {
    "offset": (1e7 + np.random.default_rng(0).normal(size=50), "rounded by 0.49"),
    "seconds": (1.7e9 + np.arange(50.0), "differ by about 1 from one to the next"),
    "tiny": (1e-50 * np.arange(50.0), "rounded by 4.9e-49"),
    "large": (np.linspace(0.0, 1e39, 50), "rounded by inf"),
    "whole": (np.full(50, 3_000_000_000), "3000000000, which int32 cannot"),
}
HELD = {
    "normal": np.random.default_rng(1).normal(size=50),
    "sorted": np.sort(np.random.default_rng(2).normal(size=100_000)),
    "years": 1950.0 + np.arange(50.0),
    "constant": np.full(50, 1e7 + 0.3),
    "missing": np.array([np.nan, 1.0, np.inf, 2.5, 1e-9]),
    "single": np.array(0.1),
    "empty": np.zeros(0),
    "counts": np.arange(50),
}


@pytest.mark.parametrize("name", LOST)
def test_data_that_single_precision_cannot_hold(name):
    """JAX narrows them without a word; whole numbers overflow."""
    x, message = LOST[name]
    y = np.zeros(50)
    with pytest.raises(ValueError, match=f"argument 'x' .*{message}.*enable_x64"):
        build_target(KEY, regression, (x,), {"y": y})
    target = build_target(KEY, regression, (np.ones(50, x.dtype),), {"y": y})
    with pytest.raises(ValueError, match="argument 'x'"):
        target.with_data(x, y=y)
    with jax.enable_x64(True):
        check_representable(regression, ((x,), {"y": y}))


@pytest.mark.parametrize("name", HELD)
def test_data_that_single_precision_can_hold(name):
    check_representable(regression, ((HELD[name],), {}))
