"""Where training starts: the skewness of a posterior from gradients, and maps that have it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_onestep import flow as flows
from numpyro_onestep.networks import GatedResidualNetwork
from numpyro_onestep.preconditioner import Affine, Density
from numpyro_onestep.target import build_target
from numpyro_onestep.training import ResampleMove, draw
from numpyro_onestep.training.draws import ess_and_evidence
from numpyro_onestep.training.skewness import ridges
from numpyro_onestep.training.start import best_start
from numpyro_onestep.training.updates import map_of

DIM = 6


def directions(num, seed=0):
    v = np.random.default_rng(seed).standard_normal((num, DIM))
    return (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)


def tensor(v, weights):
    return np.einsum("r,ri,rj,rk->ijk", weights, v, v, v)


def test_ridges_of_a_known_tensor():
    """Scores with a known cubic part: the sum of ridges is the tensor, within 5 % by its norm.

    Its noise is that of 40,000 draws, 1 % of the norm; the bound fails for no seed in 10^6.
    """
    v, weights = directions(4), np.array([0.3, -0.2, 0.15, 0.1], np.float32)
    base = jax.random.normal(jax.random.key(0), (40_000, DIM))
    # The gradient of sum_k c_k He_3(v_k z) / 6, whose third derivatives are the tensor.
    residual = ((base @ v.T) ** 2 - 1.0) @ (0.5 * weights[:, None] * v)
    found, sizes = ridges(base, residual - base, directions(8, seed=1))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-4)
    error = tensor(np.asarray(found), np.asarray(sizes)) - tensor(v, weights)
    assert np.linalg.norm(error) < 0.05 * np.linalg.norm(tensor(v, weights))


def test_scores_that_are_not_finite_count_for_nothing():
    base = jax.random.normal(jax.random.key(0), (500, DIM))
    score = (-base).at[:100].set(jnp.nan).at[100:110].set(1e30)
    found, weights = ridges(base, score, directions(4))
    assert np.isfinite(found).all() and np.isfinite(weights).all()


@pytest.mark.parametrize("width, num_blocks", [(16, 2), (9, 3)])
def test_bent_maps_follow_their_bends(width, num_blocks):
    """Mean and second Hermite coefficient along every direction, by quadrature over its line."""
    network = GatedResidualNetwork(DIM, width=width, num_blocks=num_blocks, tail=0.0)
    # Small ones, so that the blocks' order does not count.
    v, weights = directions(3), np.array([0.02, -0.01, 0.005], np.float32)
    params = network.bent(network.init(jax.random.key(0)), v, weights)
    blocks = flows.FlowMap(network).steps(params)
    z = jax.random.normal(jax.random.key(1), (100_000, DIM))
    moved = np.asarray(jax.vmap(flows.apply, (None, 0))(blocks, z) - z)
    np.testing.assert_allclose(moved.mean(axis=0), 0.0, atol=2e-4)
    for direction in np.eye(DIM, dtype=np.float32):
        hermite = np.asarray((z @ direction) ** 2 - 1.0)
        expected = ((v @ direction) ** 2 * weights) @ v
        found = 0.5 * (moved * hermite[:, None]).mean(axis=0)
        np.testing.assert_allclose(found, expected, atol=3e-4)


def test_as_many_bends_as_there_are_units():
    network = GatedResidualNetwork(DIM, width=9, num_blocks=3)
    assert network.num_ridges == 12
    v, weights = directions(12), np.full(12, 0.01, np.float32)
    params = network.bent(network.init(jax.random.key(0)), v, weights)
    # Eight units of four bends, and the one of the mean.
    assert np.all(np.abs(params["shift"]).sum(axis=1) > 0.0)


def skewed(dim):
    # Independent Gumbel variables in rotated coordinates.
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0]
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (dim,)))
    numpyro.factor("density", dist.Gumbel(0.0, 1.0).log_prob(rotation @ x).sum())


@pytest.fixture(scope="module")
def density():
    dim = 20
    target = build_target(jax.random.key(0), skewed, (dim,))
    scale = np.pi / np.sqrt(6.0)
    mean = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0].T @ np.full(
        dim, np.euler_gamma
    )
    return Density(target, Affine(jnp.asarray(mean, jnp.float32), 0.85 * scale * jnp.eye(dim)))


def test_training_starts_with_the_skewness(density):
    """Twenty Gumbel variables: more than twice as many effective draws as the Gaussian fit has."""
    method = ResampleMove(num_points=1000)
    flow = method.flow(20)
    untrained = flow.init(jax.random.key(1))
    target, affine = density.target, density.affine
    fit = flows.identity(map_of(flow, 1, untrained, density))
    of_fit = draw(target, affine, fit, jax.random.key(2), 1000)
    params, num_gradients = best_start(density, flow, method, untrained, of_fit, jax.random.key(3))
    # Three further batches and four offers.
    assert num_gradients == 7000

    def share(params):
        steps = map_of(flow, 1, params, density)
        return ess_and_evidence(draw(target, affine, steps, jax.random.key(4), 1000))[0]

    assert share(params) > 2.0 * share(untrained)


def test_low_dimensions_and_high_ones_start_untrained(density):
    method = ResampleMove()
    assert method.num_start_batches(2) == method.num_start_batches(500) == 0
    # Blocks without units for a bend.
    assert ResampleMove(width=2).num_start_batches(20) == 0
    flow = method.flow(2)
    params = flow.init(jax.random.key(0))
    target = build_target(jax.random.key(0), skewed, (2,))
    two = Density(target, Affine(jnp.zeros(2), jnp.eye(2)))
    fit = flows.identity(map_of(flow, 1, params, two))
    of_fit = draw(target, two.affine, fit, jax.random.key(1), 100)
    assert best_start(two, flow, method, params, of_fit, jax.random.key(2)) == (params, 0)
