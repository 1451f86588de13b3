"""Stacks of blocks that the tests of the flow go through: one table, every property."""

import jax
import jax.numpy as jnp
import pytest

from numpyro_onestep.flow import FlowMap
from numpyro_onestep.networks import GatedResidualNetwork

# name: (dim, width, num_blocks, num_steps); both sides of dim = width, one step and several.
SHAPES = {
    "1-d": (1, 4, 2, 1),
    "2-d": (2, 5, 2, 1),
    "dim < width": (3, 8, 3, 1),
    "dim = width": (4, 4, 2, 1),
    "dim > width": (7, 3, 3, 1),
    "dim < width, 3 steps": (3, 8, 2, 3),
    "dim > width, 3 steps": (7, 3, 2, 3),
}


def random_flow(shape, scale=0.3, seed=0):
    """A flow and parameters that are nowhere zero, so that no part of the map is idle."""
    dim, width, num_blocks, _ = shape
    # Wild parameters and several steps: tails of the default weight would overflow at far draws.
    flow = FlowMap(GatedResidualNetwork(dim, width, num_blocks, tail=0.02 * dim**0.5))
    return flow, random_params(flow, scale, seed)


def random_params(flow, scale, seed=0):
    """Parameters of a flow that are nowhere zero."""
    params = flow.init(jax.random.key(seed))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    leaves = [
        leaf + scale * jax.random.normal(k, leaf.shape, leaf.dtype) / jnp.sqrt(leaf.shape[-1])
        for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
