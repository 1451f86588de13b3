"""Densities at many points of a model with many rows, and Jacobians in many dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_onestep.flow import ControlledFlow
from numpyro_onestep.networks import ControlNetwork
from numpyro_onestep.preconditioner import Affine, Density
from numpyro_onestep.target import batches, build_target
from numpyro_onestep.training.draws import draw, value_and_score


def regression(x, y=None):
    with numpyro.plate("feature", x.shape[1]):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def wide(dim):
    numpyro.sample("x", dist.Normal(0.0, 1.0).expand([dim]).to_event(1))


def target_of(rows):
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    return build_target(jax.random.key(0), regression, (x, (x[:, 0] > 0.0).astype(np.float32)))


@pytest.mark.parametrize("values", [1, 700, 2**28])
def test_batches_change_no_value(monkeypatch, values):
    target, affine = target_of(20), Affine(jnp.zeros(3), jnp.eye(3))
    z = jax.random.normal(jax.random.key(1), (12, 3))
    whole = value_and_score(target, affine, z)
    monkeypatch.setattr(batches, "_VALUES_PER_BATCH", values)
    for found, expected in zip(value_and_score(target, affine, z), whole, strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("values", [1, 2**27, 2**28, 2**30])
def test_points_may_be_any_pytree(values):
    points = jnp.arange(12.0), {"y": jnp.arange(24.0).reshape(12, 2)}
    found = batches.in_batches(lambda p: p[0] + p[1]["y"].sum(), points, values)
    np.testing.assert_allclose(found, points[0] + points[1]["y"].sum(axis=-1))


def test_memory_does_not_grow_with_points_times_a_jacobian():
    """A controlled flow has dense Jacobians: one of 400 dimensions for each of 4000 points."""
    dim, points = 400, 4000
    target = build_target(jax.random.key(0), wide, (dim,))
    density = Density(target, Affine(jnp.zeros(dim), jnp.eye(dim)))
    flow = ControlledFlow(ControlNetwork(dim, 8, 1))
    steps = flow.steps(flow.init(jax.random.key(1)), 1, density)

    def drawn(steps, key):
        return draw(target, density.affine, steps, key, points)

    needed = jax.jit(drawn).lower(steps, jax.random.key(2)).compile().memory_analysis()
    assert needed.temp_size_in_bytes < 0.5 * 4 * dim**2 * points


def test_memory_does_not_grow_with_points_times_rows():
    affine = Affine(jnp.zeros(3), jnp.eye(3))
    rows, points = 500_000, 2000
    program = jax.jit(value_and_score).lower(target_of(rows), affine, jnp.zeros((points, 3)))
    needed = program.compile().memory_analysis().temp_size_in_bytes
    # One float per point and row would be 4 GB.
    assert needed < 0.5 * 4 * rows * points
