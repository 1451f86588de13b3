"""What single precision does to a log-density, seen from double precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import gammaln

from numpyro_onestep.exploration import explore
from numpyro_onestep.target import (
    build_target,
    can_be_double,
    in_double,
    log_prior_by_site,
    pointwise_log_likelihood,
    predictive_draws,
    prior_draws,
    rounding_errors,
)


def cancelling():
    """`log Gamma(c + 1) - log Gamma(c) - log c` is zero for every c."""
    c = numpyro.sample("c", dist.LogNormal(0.0, 5.0))
    numpyro.factor("f", gammaln(c + 1.0) - gammaln(c) - jnp.log(c))


def around_the_difference(y):
    """The same difference, of which the observations are told."""
    c = numpyro.sample("c", dist.LogNormal(0.0, 5.0))
    zero = numpyro.deterministic("zero", gammaln(c + 1.0) - gammaln(c) - jnp.log(c))
    numpyro.deterministic("digits", jnp.floor(jnp.log10(c)).astype(int))
    numpyro.sample("y", dist.Normal(zero, 0.001), obs=y)


def smooth():
    """A smooth Gaussian process in white noise: its Cholesky factor needs double precision."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    x = jnp.arange(11.0)
    covariance = jnp.exp(-0.5 * (x[:, None] - x) ** 2 / (2.0 + scale) ** 2) + 1e-9 * jnp.eye(11)
    white = numpyro.sample("white", dist.Normal(0.0, 1.0).expand([11]))
    numpyro.sample("y", dist.Poisson(jnp.exp(jnp.linalg.cholesky(covariance) @ white)), obs=2.0)


def large(y):
    """A log-density of minus a million, which is rounded to a tenth of a nat."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def single_only():
    """A loop whose state has single precision whatever else has."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    start = jnp.zeros((), jnp.float32)
    numpyro.factor("f", jax.lax.fori_loop(0, 3, lambda _, total: total + x, start))


# Of NumPy's default type, as in a notebook.
COVARIATE = np.linspace(-1.0, 1.0, 8)
STEPS = np.arange(8)


def closing(y):
    """A model that closes over arrays."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(slope * COVARIATE + STEPS, 1.0), obs=y)


def closing_inside_a_loop(y):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    _, mean = jax.lax.scan(
        lambda c, i: (c, c * jnp.asarray(COVARIATE)[i] + jnp.asarray(STEPS)[i]),
        slope,
        jnp.arange(8),
    )
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def bounded():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("f", jnp.where(x > 0.0, 0.0, -jnp.inf))


def test_cancellation_is_found():
    target = build_target(jax.random.key(0), cancelling)
    x = np.array([[0.0], [2.0], [16.0], [20.0]], np.float32)
    errors = rounding_errors(target, x)
    assert (errors[:2] == 0.0).all() and (errors[2:] > 1.0).all()
    # The same for values that are known already.
    known = jax.vmap(target.log_density)(x)
    np.testing.assert_allclose(rounding_errors(target, x, known), errors, rtol=1e-3)


def test_ordinary_rounding_is_no_error():
    target = build_target(jax.random.key(0), large, (np.full(1000, 45.0, np.float32),))
    x = np.array([[-0.3], [0.0], [1.7]], np.float32)
    assert float(target.log_density(x[1])) < -1e6
    assert (rounding_errors(target, x) == 0.0).all()


def test_double_precision_itself_is_taken_at_its_word():
    with jax.enable_x64(True):
        target = build_target(jax.random.key(0), cancelling)
        assert (rounding_errors(target, np.array([[20.0], [60.0]])) == 0.0).all()


def test_a_model_for_single_precision_only():
    target = build_target(jax.random.key(0), single_only)
    with pytest.raises(TypeError):
        in_double(target).log_density(jnp.zeros(1))
    assert not can_be_double(target)
    assert (rounding_errors(target, np.zeros((3, 1), np.float32)) == 0.0).all()


def test_no_density_has_no_error():
    target = build_target(jax.random.key(0), bounded)
    x = np.array([[-1.0], [1.0]], np.float32)
    assert (rounding_errors(target, x) == 0.0).all()
    # Single precision has a number where double precision has none.
    assert rounding_errors(target, x, np.zeros(2)).tolist() == [
        np.inf,
        pytest.approx(1.42, abs=0.01),
    ]


def test_a_target_in_double_precision():
    """Values and derivatives are right where single precision has none, and of the usual type."""
    target = in_double(build_target(jax.random.key(0), cancelling))
    x = jnp.array([20.0])
    value, gradient = jax.jit(jax.value_and_grad(target.log_density))(x)
    assert value.dtype == gradient.dtype == jnp.float32 and not jax.config.jax_enable_x64
    # The factor is a constant zero.
    assert float(value) == pytest.approx(-0.5 * 16.0 - np.log(5.0 * np.sqrt(2.0 * np.pi)), abs=1e-4)
    assert float(gradient[0]) == pytest.approx(-20.0 / 25.0, abs=1e-3)
    curvature = jax.jit(jax.hessian(target.log_density))(x)
    assert float(curvature[0, 0]) == pytest.approx(-1.0 / 25.0, abs=1e-3)


@pytest.mark.parametrize("model", [closing, closing_inside_a_loop])
def test_a_model_that_closes_over_arrays_is_left_alone_or_right(model):
    """Programs that are otherwise single cannot hold every array of NumPy's default type."""
    target = build_target(jax.random.key(0), model, (np.zeros(8, np.float32),))
    x = np.array([[0.3], [-2.0]], np.float32)
    for _ in range(2):
        assert (rounding_errors(target, x) == 0.0).all()
    if can_be_double(target):
        one, other = (
            jax.jit(jax.vmap(jax.value_and_grad(t.log_density)))(x)
            for t in (target, in_double(target))
        )
        for found, expected in zip(other, one, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_cannot_be_double_stays_single(monkeypatch):
    """As where the derivatives of a model cannot be had in double precision."""
    monkeypatch.setattr("numpyro_onestep.exploration.modes.can_be_double", lambda _: False)
    target = build_target(jax.random.key(0), cancelling)
    found = explore(target, jax.random.key(0), 1, 64)
    assert not found.in_double and len(found.modes) >= 1


def test_data_keep_their_gradients_in_double_precision():
    target = in_double(build_target(jax.random.key(0), large, (np.full(3, 2.0, np.float32),)))

    def log_density(data):
        return dataclasses.replace(target, data=data).log_density(jnp.zeros(1))

    (gradient,) = jax.grad(log_density)(target.data)
    np.testing.assert_allclose(gradient, [-2.0, -2.0, -2.0], rtol=1e-6)


def test_all_that_the_model_says_is_in_double_precision():
    """Sites, densities by site and predictions, where single precision is tens of units off."""
    y = np.zeros(2, np.float32)
    single = build_target(jax.random.key(0), around_the_difference, (y,))
    target = in_double(single)
    x = np.full((100, 1), 20.0, np.float32)
    assert abs(single.constrain(x)["zero"][0]) > 1.0

    sites = target.constrain(x)
    np.testing.assert_allclose(sites["zero"], 0.0, atol=1e-4)
    assert {n: v.dtype.name for n, v in sites.items()} == {
        "c": "float32",
        "digits": "int32",
        "zero": "float32",
    }
    likelihood = pointwise_log_likelihood(target, x)["y"]
    np.testing.assert_allclose(likelihood, np.log(1000.0 / np.sqrt(2.0 * np.pi)), atol=1e-2)
    assert log_prior_by_site(target, x)["c"].shape == (100,)

    drawn = predictive_draws(target, jax.random.key(1), sites)["y"]
    assert drawn.dtype == np.float32 and drawn.shape == (100,)
    assert 0.0005 < np.abs(drawn).max() < 0.01
    latent, observed = prior_draws(target, jax.random.key(2), 1000)
    assert np.abs(latent["zero"]).max() < 0.01 and latent["digits"].dtype == np.int32
    assert 0.0005 < np.abs(observed["y"]).max() < 0.02
    assert not jax.config.jax_enable_x64


@pytest.mark.filterwarnings("error")
def test_products_of_matrices_stay_in_double_precision_on_the_way_back():
    """JAX narrowed them, and warned, where it went back outside the context."""
    target = in_double(build_target(jax.random.key(0), smooth))
    x = jnp.linspace(-1.0, 1.0, 12)
    gradient = jax.jit(jax.grad(target.log_density))(x)
    with jax.enable_x64(True):
        wide = build_target(jax.random.key(0), smooth)
        expected = jax.grad(wide.log_density)(jnp.asarray(x, float))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)
