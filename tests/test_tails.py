"""The tail map: slope, inverse and score against independent computations; power-law tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from stacks import x64  # noqa: F401

from numpyro_onestep import tails

pytestmark = pytest.mark.usefixtures("x64")

POINTS = np.array([-12.0, -4.0, -1.0, -1e-3, 0.0, 0.5, 2.0, 4.0, 8.0])


@pytest.fixture(params=[0.0, 0.005, 0.02, 0.25], ids="k={}".format)
def k(request):
    return jnp.asarray(request.param)


def test_log_slope(k):
    slope = jax.vmap(jax.grad(lambda x: tails.stretch(k, x)))(POINTS)
    assert_allclose(tails.log_slope(k, POINTS), jnp.log(slope), rtol=1e-12, atol=1e-14)


def test_inverse(k):
    assert_allclose(tails.shrink(k, tails.stretch(k, POINTS)), POINTS, rtol=1e-6, atol=1e-12)


def test_score(k):
    slope = jnp.exp(tails.log_slope(k, POINTS))
    gradient = jax.vmap(jax.grad(lambda x: tails.log_slope(k, x)))(POINTS)
    score = tails.push_score(k, POINTS, -POINTS)
    assert_allclose(score, (-POINTS - gradient) / slope, rtol=1e-12, atol=1e-14)


def test_zero_weight_is_the_identity():
    assert_allclose(tails.stretch(jnp.zeros(()), POINTS), POINTS, rtol=0)


def test_tails_fall_like_a_power():
    # d log q / d log y of the image of a standard normal tends to -(1 + 1/k).
    k, x = jnp.asarray(0.25), jnp.array([60.0])
    y = tails.stretch(k, x)
    assert_allclose(y * tails.push_score(k, x, -x), -(1.0 + 1.0 / k), rtol=2e-2)
    assert np.isfinite(y).all()
