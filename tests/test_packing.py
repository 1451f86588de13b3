"""Optimisers on packed parameters take the steps of the same optimisers on the leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from numpyro_onestep.training.packing import Packed, packed

STACK = optax.contrib.MuonDimensionNumbers(reduction_axis=2, output_axis=1)


def muon(dimension_numbers):
    return optax.contrib.muon(
        0.6,
        adam_learning_rate=1.0,
        consistent_rms=1.0,
        muon_weight_dimension_numbers=dimension_numbers,
    )


def on_packed(params: Packed):
    return Packed(tuple(STACK for _ in params.matrices), None)


def steps(optimiser, params):
    """Those of three different gradients, `[{name: array}]`."""
    state, found = optimiser.init(params), []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        gradient = jax.tree.map(
            lambda leaf, g=generator: jnp.asarray(g.standard_normal(leaf.shape), leaf.dtype), params
        )
        step, state = optimiser.update(gradient, state, params)
        found.append(step)
    return found


@pytest.mark.parametrize(
    "shapes",
    [
        {"a": (3, 6, 5), "b": (3, 5, 6), "c": (7,)},
        {"a": (3, 5, 5), "b": (2, 9, 5), "c": (2, 3), "d": (2, 5, 9), "e": (4, 3, 9)},
        {"a": (2, 3, 9), "b": (4,)},
    ],
    ids=["one shape", "two shapes and small ones", "none"],
)
def test_same_steps(shapes):
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    large = {name: len(shape) == 3 and min(shape[1:]) >= 5 for name, shape in shapes.items()}
    apart = muon({name: STACK if large[name] else None for name in shapes})
    together = packed(muon(on_packed), min_directions=5)
    for expected, found in zip(steps(apart, params), steps(together, params), strict=True):
        assert jax.tree.structure(expected) == jax.tree.structure(found)
        for name in shapes:
            np.testing.assert_allclose(found[name], expected[name], rtol=2e-4, atol=2e-5)


def test_few_arrays_whatever_the_number_of_leaves():
    seen = []
    inner = optax.stateless(lambda updates, _params: seen.append(updates) or updates)
    params = {str(i): jnp.full((2, 4 + i % 2, 5 - i % 2), float(i)) for i in range(6)}
    params |= {"vector": jnp.arange(3.0), "small": jnp.ones((2, 2))}
    optimiser = packed(inner, min_directions=4)
    step, _ = optimiser.update(params, optimiser.init(params))
    (values,) = seen
    assert [stack.shape for stack in values.matrices] == [(12, 4, 5)]
    assert values.vector.shape == (7,)
    jax.tree.map(np.testing.assert_array_equal, step, params)


def test_every_leaf_keeps_its_type():
    params = {"wide": jnp.ones((2, 4, 5)), "half": jnp.ones(3, jnp.bfloat16)}
    params["narrow"] = jnp.ones((2, 5, 4), jnp.float16)
    optimiser = packed(muon(on_packed), min_directions=4)
    step, _ = optimiser.update(params, optimiser.init(params), params)
    assert {name: leaf.dtype for name, leaf in step.items()} == {
        name: leaf.dtype for name, leaf in params.items()
    }
