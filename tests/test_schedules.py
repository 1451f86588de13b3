"""Noise schedules: variance preserved, lengths that add up, and the flow that they stand for."""

import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_allclose
from stacks import x64  # noqa: F401

from numpyro_onestep.schedules import CosineSchedule

pytestmark = pytest.mark.usefixtures("x64")

SCHEDULES = {
    "cosine": CosineSchedule(),
    "cosine, longer": CosineSchedule(t_min=0.002),
}


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]


def times():
    return jnp.linspace(0.0, 1.0, 101)


def test_variance_is_preserved(schedule):
    t = times()
    assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1.0, rtol=1e-12)


def test_runs_from_noise_to_data(schedule):
    alpha = schedule.alpha(times())
    assert 0.0 < alpha[0] < 0.05
    assert_allclose(alpha[-1], 1.0)
    assert (jnp.diff(alpha) > 0.0).all()


def test_lengths_add_up(schedule):
    zero, one = jnp.zeros(()), jnp.ones(())
    assert schedule.kappa(one * 0.3, zero) == 0.0
    for num_steps in (2, 3, 16):
        starts = jnp.arange(num_steps) / num_steps
        total = schedule.kappa(starts, one / num_steps).sum()
        assert_allclose(total, schedule.kappa(zero, one), rtol=1e-10)


def test_length_is_the_logarithm_of_alpha(schedule):
    # dkappa/dt = d log alpha / dt: the velocity of z = alpha z_1 + sigma eps along the flow is
    # z + score only in this clock.
    t = times()[1:-1]
    rate = jax.vmap(jax.grad(lambda d, t: schedule.kappa(t, d)))(jnp.zeros_like(t), t)
    slope = jax.vmap(jax.grad(lambda t: jnp.log(schedule.alpha(t))))(t)
    assert_allclose(rate, slope, rtol=1e-10)
    assert (rate > 0.0).all()


def test_carries_a_gaussian(schedule):
    # Posterior N(0, s^2): z_t has variance v = alpha^2 s^2 + sigma^2 and score -z / v, so a point
    # on the flow stays at the same number of standard deviations.
    s = 0.5

    def variance(t):
        return schedule.alpha(t) ** 2 * s**2 + schedule.sigma(t) ** 2

    num_steps = 400
    d = 1.0 / num_steps

    def step(i, z):
        t = i * d
        middle = z + schedule.kappa(t, d / 2) * (z - z / variance(t))
        return z + schedule.kappa(t, d) * (middle - middle / variance(t + d / 2))

    z = jax.lax.fori_loop(0, num_steps, step, jnp.sqrt(variance(jnp.zeros(()))))
    assert_allclose(z, s, rtol=1e-3)
