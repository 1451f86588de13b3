"""The blocks of the network: shapes, the identity at the start, bounds whatever the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from stacks import SHAPES, random_flow

from numpyro_onestep.networks import GatedResidualNetwork

TIMES = [(0.0, 1.0), (0.25, 0.25), (0.9, 0.0)]


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    dim, width, num_blocks, _ = SHAPES[name]
    flow, params = random_flow(SHAPES[name])
    blocks = flow.network.blocks(params, jnp.zeros(()), jnp.ones(()))
    assert blocks.hidden.shape == (num_blocks, width, dim)
    assert blocks.bias.shape == blocks.gain.shape == (num_blocks, width)
    assert blocks.tail.shape == (num_blocks,)
    assert blocks.gate.shape == blocks.shift.shape == (num_blocks, dim, width)


@pytest.mark.parametrize(("t", "d"), TIMES)
def test_starts_without_gates_and_displacements(t, d):
    network = GatedResidualNetwork(3, 5, 2)
    blocks = network.blocks(network.init(jax.random.key(0)), jnp.asarray(t), jnp.asarray(d))
    assert not blocks.gate.any()
    assert not blocks.shift.any()
    assert_allclose(blocks.gain, 1.0)
    assert jnp.abs(blocks.hidden).min() > 0.0


@pytest.mark.parametrize(("t", "d"), TIMES)
@pytest.mark.parametrize("scale", [0.3, 100.0])
def test_gain_is_bounded(scale, t, d):
    flow, params = random_flow(SHAPES["dim < width"], scale)
    blocks = flow.network.blocks(params, jnp.asarray(t), jnp.asarray(d))
    assert blocks.gain.min() >= 0.0
    assert blocks.gain.max() <= 2.0


def test_depends_on_time_and_step_size():
    flow, params = random_flow(SHAPES["dim < width"])
    blocks = [
        flow.network.blocks(params, jnp.asarray(t), jnp.asarray(d))
        for t, d in [(0.0, 1.0), (0.0, 0.5), (0.5, 0.5)]
    ]
    for a, b in [(0, 1), (1, 2), (0, 2)]:
        assert np.abs(np.asarray(blocks[a].bias - blocks[b].bias)).max() > 1e-3


def test_equal_networks_compile_once():
    traced = []

    @jax.jit
    def gains(params, t):
        traced.append(None)
        return GatedResidualNetwork(3, 5, 2).blocks(params, t, t).gain

    for seed in range(2):
        gains(GatedResidualNetwork(3, 5, 2).init(jax.random.key(seed)), jnp.asarray(0.5))
    assert len(traced) == 1
    assert hash(GatedResidualNetwork(3, 5, 2)) == hash(GatedResidualNetwork(3, 5, 2))
