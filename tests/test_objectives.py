"""Objectives: their gradients against closed forms and quadrature.

Estimates are compared in 40 batches: 5 standard errors, t with 39 degrees of freedom, fail by
chance once in 80,000 comparisons; there are about 20, and the seeds are fixed.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import FlowMap
from numpyro_onestep.networks import GatedResidualNetwork
from numpyro_onestep.objectives import (
    Intervals,
    PathJeffreys,
    StateConsistency,
    TargetScoreMatching,
    TrainingBatch,
)
from numpyro_onestep.schedules import CosineSchedule

KEY = jax.random.key(0)
NUM_BATCHES, NUM = 40, 1000


def batch_of(
    key, dim, points, points_score, *, flow=None, params=None, target_score=None, num_outer=0
):
    """A batch at the map's own draws, further out, and at given posterior points, found exactly."""
    keys = jax.random.split(key, 4)
    num = len(points)
    base = jax.random.normal(keys[0], (num, dim))
    outer = 2.0 * base[:num_outer]
    image, outer_image, preimages = base, outer, points
    if flow is not None:
        blocks = flow.steps(params)
        image, outer_image = (jax.vmap(flows.apply, (None, 0))(blocks, z) for z in (base, outer))
        preimages, _ = jax.vmap(flows.invert, (None, 0))(blocks, points)
    return TrainingBatch(
        base=base,
        image=image,
        image_score=target_score(image) if target_score else -image,
        outer=outer,
        outer_score=target_score(outer_image) if target_score else -outer_image,
        points=points,
        points_score=points_score,
        preimages=preimages,
        times=jax.random.uniform(keys[1], (num,)),
        noise=jax.random.normal(keys[2], (num, dim)),
        uniform=jax.random.uniform(keys[3], (num,)),
        teacher=params,
    )


def vanishes(estimates):
    """Whether batches (NUM_BATCHES, ...) have mean zero, up to 5 standard errors."""
    estimates = np.asarray(estimates, np.float64)
    se = estimates.std(0, ddof=1) / np.sqrt(len(estimates))
    return np.all(np.abs(estimates.mean(0)) <= 5.0 * se + 1e-6)


def test_path_jeffreys_has_no_variance_at_the_optimum():
    """Identity map and standard normal posterior: not one batch has a gradient."""
    flow = FlowMap(GatedResidualNetwork(3, 8, 2, tail=0.0))
    params = flow.network.init(KEY)
    points = 2.0 * jax.random.normal(KEY, (64, 3))
    batch = batch_of(KEY, 3, points, -points, flow=flow, params=params, num_outer=32)
    gradient = jax.jit(jax.grad(lambda p: PathJeffreys().loss(flow, p, batch)))(params)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-5)


def test_path_jeffreys_sees_what_is_wrong_further_out_only():
    """Eight points further out have the gradient of eight draws among 24."""
    flow = FlowMap(GatedResidualNetwork(3, 8, 2, tail=0.0))
    params = flow.network.init(KEY)
    points = jax.random.normal(KEY, (16, 3))
    batch = batch_of(KEY, 3, points, -points, flow=flow, params=params, num_outer=8)
    batch = batch._replace(outer_score=0.5 * batch.outer_score)
    alone = batch._replace(
        base=batch.outer,
        image_score=batch.outer_score,
        outer=batch.outer[:0],
        outer_score=batch.outer_score[:0],
    )
    gradient = jax.jit(jax.grad(lambda p, b: PathJeffreys().loss(flow, p, b)))
    found, of_these = gradient(params, batch)["shift"], gradient(params, alone)["shift"]
    assert float(jnp.abs(of_these).max()) > 0.1
    np.testing.assert_allclose(found, of_these * 8 / 24, rtol=1e-4, atol=1e-6)


# A one-dimensional posterior and a map that is far from it.
MEAN, SD = 0.5, 0.7
TRAINED = ("hidden", "bias", "gate", "shift")


def posterior_log_density(x):
    return -0.5 * ((x - MEAN) / SD) ** 2 - jnp.log(SD * jnp.sqrt(2.0 * jnp.pi))


def jeffreys(flow, params):
    """KL(q || p) + KL(p || q) by quadrature, differentiable in the parameters."""
    blocks = flow.steps(params)
    grid = jnp.linspace(-8.0, 8.0, 4001)[:, None]
    width = grid[1, 0] - grid[0, 0]

    def normal(z):
        return -0.5 * z**2 - 0.5 * jnp.log(2.0 * jnp.pi)

    def log_q(z):
        x, log_det, _ = flows.apply_with_log_det(blocks, z)
        return x[0], normal(z[0]) - log_det

    x, value = jax.vmap(log_q)(grid)
    forward = jnp.sum(jnp.exp(normal(grid[:, 0])) * (value - posterior_log_density(x))) * width

    held = jax.lax.stop_gradient(blocks)

    def value_at(x):
        z, _ = flows.invert(held, x, 30)
        z = jax.lax.stop_gradient(z)
        slope = jax.jacfwd(lambda z: flows.apply(held, z))(z)[0, 0]
        # One more Newton step carries the derivative of the inverse in the parameters.
        z = z - (flows.apply(blocks, z) - x) / jax.lax.stop_gradient(slope)
        return log_q(z)[1]

    log_p = posterior_log_density(grid[:, 0])
    backward = jnp.sum(jnp.exp(log_p) * (log_p - jax.vmap(value_at)(grid))) * width
    return forward + backward


def test_path_jeffreys_is_the_gradient_of_the_divergence():
    flow = FlowMap(GatedResidualNetwork(1, 3, 2, tail=0.0))
    params = flow.network.init(KEY)
    for i, name in enumerate(("gate", "shift")):
        noise = jax.random.normal(jax.random.key(i), params[name].shape)
        params = {**params, name: 0.15 * noise}
    truth = jax.jit(jax.grad(lambda p: jeffreys(flow, p)))(params)
    objective = PathJeffreys(max_force=1e6)

    @jax.jit
    def gradient(key):
        key_points, key_batch = jax.random.split(key)
        points = MEAN + SD * jax.random.normal(key_points, (NUM, 1))

        def score(x):
            return (MEAN - x) / SD**2

        batch = batch_of(
            key_batch, 1, points, score(points), flow=flow, params=params, target_score=score
        )
        return jax.grad(lambda p: objective.loss(flow, p, batch))(params)

    estimates = jax.lax.map(gradient, jax.random.split(jax.random.key(1), NUM_BATCHES))
    for name in TRAINED:
        assert float(jnp.abs(truth[name]).max()) > 0.05, name
        assert vanishes(estimates[name] - truth[name]), name


def test_path_jeffreys_leaves_out_what_is_not_finite_and_limits_the_rest():
    flow = FlowMap(GatedResidualNetwork(2, 4, 1, tail=0.0))
    params = flow.network.init(KEY)
    points = jax.random.normal(KEY, (8, 2))
    gradient = jax.jit(jax.grad(lambda p, b: PathJeffreys().loss(flow, p, b)))
    bad = jnp.array([[jnp.nan, 0.0], [jnp.inf, 1.0], *[[0.0, 0.0]] * 6]) - points
    left_out = gradient(params, batch_of(KEY, 2, points, bad, flow=flow, params=params))
    np.testing.assert_allclose(left_out["shift"], 0.0, atol=1e-5)
    lengths = []
    for size in (1e3, 1e6):
        steep = batch_of(KEY, 2, points, size - points, flow=flow, params=params)
        lengths.append(gradient(params, steep)["shift"])
    np.testing.assert_allclose(*lengths, rtol=1e-4)


@pytest.mark.parametrize(
    "objective", [PathJeffreys(), TargetScoreMatching(), StateConsistency()], ids=str
)
def test_a_point_far_out_leaves_a_gradient(objective):
    """A heavy tail has points whose squares overflow: they teach nothing, and spoil nothing."""
    flow = FlowMap(GatedResidualNetwork(2, 4, 1))
    params = jax.tree.map(lambda leaf: leaf + 0.1, flow.network.init(KEY))
    points = jax.random.normal(KEY, (8, 2)).at[3].set(1e15)
    batch = batch_of(KEY, 2, points, -points, flow=flow, params=params)
    # Where Newton's method has lost its way.
    batch = batch._replace(preimages=batch.preimages.at[3].set(1e3))
    gradient = jax.jit(jax.grad(lambda p: objective.loss(flow, p, batch)))(params)
    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert max(float(jnp.abs(leaf).max()) for leaf in leaves) > 0.0


@dataclasses.dataclass(frozen=True)
class GivenVelocity:
    """What objectives use of a flow, with a velocity of our own."""

    velocity: object
    schedule: CosineSchedule = CosineSchedule()


MEANS, SDS = jnp.array([-1.0, 1.5]), jnp.array([0.5, 0.7])


def mixture_score(x, alpha=1.0, sigma=0.0):
    """Score of two normals of equal weight after noising."""

    def log_density(x):
        variance = (alpha * SDS) ** 2 + sigma**2
        parts = -0.5 * (x - alpha * MEANS) ** 2 / variance - 0.5 * jnp.log(variance)
        return jax.scipy.special.logsumexp(parts)

    return jax.grad(log_density)(x)


def test_target_score_matching_is_stationary_at_the_true_velocity():
    """A mixture of normals, whose noised score is known: no direction lowers the loss."""

    def velocity(params, x, t, density):
        schedule = CosineSchedule()
        score = mixture_score(x[0], schedule.alpha(t), schedule.sigma(t))
        directions = jnp.stack([jnp.ones(()), x[0], jnp.tanh(x[0]), t * x[0], jnp.cos(3.0 * x[0])])
        return x + score + params @ directions

    objective = TargetScoreMatching(max_residual=1e6)
    flow = GivenVelocity(velocity)

    @jax.jit
    def gradient(key):
        keys = jax.random.split(key, 3)
        which = jax.random.bernoulli(keys[0], 0.5, (NUM,)).astype(int)
        points = MEANS[which] + SDS[which] * jax.random.normal(keys[1], (NUM,))
        scores = jax.vmap(mixture_score)(points)
        batch = batch_of(keys[2], 1, points[:, None], scores[:, None])
        return jax.grad(lambda p: objective.loss(flow, p, batch))(jnp.zeros(5))

    estimates = jax.lax.map(gradient, jax.random.split(KEY, NUM_BATCHES))
    assert vanishes(estimates)
    # The test has power: its errors are small against the slope at a velocity that is 0.1 off.
    assert np.all(np.std(estimates, axis=0) / np.sqrt(NUM_BATCHES) < 0.02)


def test_target_score_matching_is_exact_for_a_gaussian():
    flow = FlowMap(GatedResidualNetwork(3, 8, 2, tail=0.0))
    params = flow.network.init(KEY)
    points = jax.random.normal(KEY, (64, 3))
    loss = TargetScoreMatching().loss(flow, params, batch_of(KEY, 3, points, -points))
    assert float(loss) == pytest.approx(0.0, abs=1e-10)


@dataclasses.dataclass(frozen=True)
class GaussianFlow:
    """The exact flow to N(0, sd^2): every step is a multiplication, times `params`."""

    sd: float
    schedule: CosineSchedule = CosineSchedule()

    def scale(self, t):
        return jnp.sqrt((self.schedule.alpha(t) * self.sd) ** 2 + self.schedule.sigma(t) ** 2)

    def step(self, params, t, d, density):
        network = GatedResidualNetwork(1, 1, 1, tail=0.0)
        blocks = network.blocks(network.init(KEY), t, d)
        # A saturated unit makes the gate a constant.
        return blocks._replace(
            hidden=jnp.zeros((1, 1, 1)),
            bias=jnp.full((1, 1), 20.0),
            gain=jnp.log(params * self.scale(t + d) / self.scale(t)).reshape(1, 1),
            gate=jnp.ones((1, 1, 1)),
            shift=jnp.zeros((1, 1, 1)),
        )

    def velocity(self, params, x, t, density):
        return x - x / self.scale(t) ** 2


def consistency(flow, params, teacher, uniform, num_levels):
    points = flow.sd * jax.random.normal(KEY, (200, 1))
    batch = batch_of(KEY, 1, points, points)._replace(teacher=teacher, uniform=uniform)
    return StateConsistency(Intervals(1, num_levels)).loss(flow, params, batch)


def test_state_consistency_of_an_exact_flow():
    flow = GaussianFlow(0.4)
    # All levels but the shortest, where the teacher takes steps along the velocity.
    uniform = jnp.linspace(0.0, 0.74, 200)
    one = jnp.ones(())
    assert float(consistency(flow, one, one, uniform, 4)) == pytest.approx(0.0, abs=1e-8)
    assert float(consistency(flow, 1.1 * one, one, uniform, 4)) > 0.03
    # Two half steps are each a tenth longer.
    both = consistency(flow, 1.21 * one, 1.1 * one, uniform, 4)
    assert float(both) == pytest.approx(0.0, abs=1e-8)


def test_state_consistency_at_the_shortest_step():
    """Steps along the velocity are off by their curvature, a quarter as much per halved step."""
    flow, one, shortest = GaussianFlow(0.4), jnp.ones(()), jnp.full(200, 0.999)
    losses = [float(consistency(flow, one, one, shortest, n)) for n in (4, 5)]
    assert 0.0 < losses[1] < 0.5 * losses[0] < 0.05


def test_the_teacher_is_not_trained():
    flow, one = GaussianFlow(0.4), jnp.ones(())
    uniform = jnp.linspace(0.0, 0.74, 200)

    def loss(teacher):
        return consistency(flow, 1.1 * one, teacher, uniform, 4)

    assert float(jax.grad(loss)(one)) == 0.0
