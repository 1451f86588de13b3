"""The flow map: determinants, scores and inverses of every stack, against autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from stacks import SHAPES, random_flow, x64  # noqa: F401

from numpyro_onestep import flow as flows

pytestmark = pytest.mark.usefixtures("x64")


def stack(name, scale=0.3):
    """The blocks of the whole map and a few points, some of them far out."""
    shape = SHAPES[name]
    flow, params = random_flow(shape, scale)
    z = jax.random.normal(jax.random.key(7), (5, shape[0]))
    return flow.steps(params, shape[-1]), z * jnp.array([0.3, 1.0, 1.0, 2.0, 3.0])[:, None]


@pytest.mark.parametrize("name", SHAPES)
def test_log_det_is_that_of_the_jacobian(name):
    blocks, z = stack(name)

    @jax.jit
    @jax.vmap
    def both(z):
        jacobian = jax.jacfwd(flows.apply, argnums=1)(blocks, z)
        return flows.apply_with_log_det(blocks, z), (flows.apply(blocks, z), jacobian)

    (image, log_det, sign), (want_image, jacobian) = both(z)
    assert_allclose(image, want_image, rtol=1e-12)
    want_sign, want = np.linalg.slogdet(jacobian)
    assert_allclose(log_det, want, rtol=1e-9, atol=1e-9)
    assert_allclose(sign, want_sign)


@pytest.mark.parametrize("name", SHAPES)
def test_pushed_score_is_the_recursive_formula_by_autodiff(name):
    blocks, z = stack(name)

    @jax.jit
    @jax.vmap
    def wanted(z):
        jacobian = jax.jacfwd(flows.apply, argnums=1)(blocks, z)
        gradient = jax.grad(lambda z: flows.apply_with_log_det(blocks, z)[1])(z)
        return flows.apply(blocks, z), jnp.linalg.solve(jacobian.T, -z - gradient)

    (x, score), (want_x, want_score) = jax.jit(flows.push_score)(blocks, z, -z), wanted(z)
    assert_allclose(x, want_x, rtol=1e-10)
    assert_allclose(score, want_score, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["1-d", "2-d"])
def test_pushed_score_is_the_slope_of_the_density(name):
    # The density of the images through the inverse, differentiated by central differences.
    blocks, z = stack(name, scale=0.1)

    def log_q(x):
        preimage, miss = flows.invert(blocks, x, 30)
        log_det = flows.apply_with_log_det(blocks, preimage)[1]
        return -0.5 * jnp.sum(preimage**2) - log_det, miss

    @jax.jit
    @jax.vmap
    def differences(x):
        steps = 1e-5 * jnp.eye(len(x))
        ahead, miss = jax.vmap(log_q)(x + steps)
        behind, _ = jax.vmap(log_q)(x - steps)
        return (ahead - behind) / 2e-5, miss.max()

    x, score = flows.push_score(blocks, z, -z)
    slope, miss = differences(x)
    assert miss.max() < 1e-9
    assert_allclose(score, slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_inverse(name):
    blocks, z = stack(name, scale=0.1)
    x = jax.vmap(flows.apply, in_axes=(None, 0))(blocks, z)
    preimage, miss = jax.jit(jax.vmap(lambda x: flows.invert(blocks, x, 20)))(x)
    assert miss.max() < 1e-9
    assert_allclose(preimage, z, rtol=1e-7, atol=1e-7)


def test_inverse_tells_where_it_did_not_arrive():
    # Around bends: not reached coordinate by coordinate, nor by Newton's steps from there.
    flow, params = random_flow(SHAPES["2-d"], scale=1.5)
    blocks = flow.steps(params)
    x = jax.vmap(flows.apply, in_axes=(None, 0))(
        blocks, jax.random.normal(jax.random.key(3), (200, 2))
    )
    invert = jax.jit(jax.vmap(flows.invert, in_axes=(None, 0, None)), static_argnums=2)
    guess, near = invert(blocks, x, 0)
    landed = jax.vmap(flows.apply, in_axes=(None, 0))(blocks, guess)
    assert_allclose(near, jnp.linalg.norm(landed - x, axis=1), rtol=1e-12)
    few, many = (np.asarray(invert(blocks, x, num)[1]) for num in (8, 60))
    assert (near > 1e-6).mean() > 0.9
    assert 0.01 < (few > 1e-6).mean() < 0.1
    assert many.max() < 1e-9
    assert np.median(near) > 1e3 * many.max()


@pytest.mark.parametrize("name", SHAPES)
def test_no_step_is_the_identity(name):
    flow, params = random_flow(SHAPES[name])
    z = jnp.linspace(-3.0, 3.0, flow.dim)
    still = flow.step(params, jnp.asarray(0.4), jnp.asarray(0.0))
    assert_allclose(flows.apply(still, z), z, rtol=1e-14)


def test_steps_compose():
    flow, params = random_flow(SHAPES["dim < width"])
    z = jnp.linspace(-2.0, 2.0, flow.dim)
    third = 1.0 / 3.0
    x = z
    for i in range(3):
        x = flows.apply(flow.step(params, jnp.asarray(i * third), jnp.asarray(third)), x)
    assert_allclose(flows.apply(flow.steps(params, 3), z), x, rtol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_velocity_is_the_derivative_of_a_step(name):
    flow, params = random_flow(SHAPES[name])
    x, t, d = jnp.linspace(-2.0, 2.0, flow.dim), jnp.asarray(0.5), 1e-6
    # The network sees the step size; its parameters are held at d = 0, as `velocity` does.
    blocks = flow.step(params, t, jnp.asarray(d))
    share = flow.schedule.kappa(t, jnp.asarray(d))
    assert_allclose(
        (flows.apply(blocks, x) - x) / share, flow.velocity(params, x, t), rtol=1e-3, atol=1e-3
    )


# Stacks so badly scaled that they fold, and a target where they do. Base draws spread by 1.5 and
# the chosen stacks keep the weights bounded in practice, so that their standard error can be
# trusted. Tolerance: 4 standard errors, failing 1 new set of draws in 15,000.
FOLDING = {  # name: (scale of the parameters, number of steps)
    "1 step": (0.8, 1),
    "3 steps": (0.9, 3),
}


def folding(name):
    scale, num_steps = FOLDING[name]
    flow, params = random_flow((2, 6, 2, num_steps), scale, seed=12)
    mapped = jax.jit(jax.vmap(flows.apply_with_log_det, in_axes=(None, 0)))
    return functools.partial(mapped, flow.steps(params, num_steps))


def log_target(x, centre, sd=0.5):
    return -0.5 * (((x - centre) / sd) ** 2).sum(-1) - jnp.log(2.0 * jnp.pi * sd**2)


@pytest.mark.parametrize("name", FOLDING)
def test_signed_weights_are_unbiased_on_folds(name):
    sd = 1.5
    z = sd * jax.random.normal(jax.random.key(11), (400_000, 2))
    x, log_det, sign = folding(name)(z)
    folded = (sign < 0) & (jnp.linalg.norm(z, axis=-1) < 2.0)
    centre = jnp.median(x[folded], axis=0)
    weight = jnp.exp(log_target(x, centre) + log_det - log_target(z, 0.0, sd))
    weight, signed = np.asarray(weight), np.asarray(weight * sign)
    error = signed.std() / np.sqrt(len(signed))
    assert np.mean(np.asarray(sign) < 0) > 0.05
    assert error < 0.02
    assert abs(signed.mean() - 1.0) < 4.0 * error
    assert weight.mean() - 1.0 > 4.0 * error


def test_signed_volume_is_exact_on_folds():
    # Without any draws: a sum over a fine grid that covers all preimages of the target.
    axis = jnp.linspace(-9.0, 9.0, 901)
    z = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    run = folding("1 step")
    x, log_det, sign = run(z)
    inner = jnp.linalg.norm(z, axis=-1) < 2.0
    density = jnp.exp(log_target(x, jnp.median(x[inner], axis=0)) + log_det)
    cell = (axis[1] - axis[0]) ** 2
    assert_allclose((density * sign).sum() * cell, 1.0, atol=1e-3)
    assert density.sum() * cell > 1.1
