"""Where points of training lie that are further out than draws of the base."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from numpyro_onestep.exploration import Component, Partition
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import build_target
from numpyro_onestep.training import Draws
from numpyro_onestep.training.outer import funnel_axes, may_have_axes, outer_factors

NUM = 2000


def funnel(z):
    """The scale of all coordinates but the last falls with the last one."""
    scale = jnp.exp(0.5 * z[-1])
    return -0.5 * (z[-1] ** 2 + ((z[:-1] / scale) ** 2).sum()) - (len(z) - 1) * jnp.log(scale)


def student(z):
    """The same in all directions, and heavier in the tails than a normal."""
    return -0.5 * (len(z) + 5.0) * jnp.log1p((z**2).sum() / 5.0)


def normal(z):
    """What the fit says it is."""
    return -0.5 * (z**2).sum()


def draws_of_fit(log_density, dim, *, basis=None, seed=0):
    base = jax.random.normal(jax.random.key(seed), (NUM, dim))
    basis = jnp.eye(dim) if basis is None else basis
    value, score = jax.vmap(jax.value_and_grad(lambda z: log_density(basis.T @ z)))(base)
    none = jnp.zeros(NUM)
    return Draws(base, base, value, score, none, none + 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_axis_of_a_funnel_is_found_in_any_basis(seed):
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(10, 10)))[0]
    axes = funnel_axes(draws_of_fit(funnel, 10, basis=basis, seed=seed))
    assert axes.shape[1] >= 1
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-6)
    assert abs(axes[:, 0] @ basis[:, -1]) > 0.9


@pytest.mark.parametrize(("log_density", "dim"), [(normal, 20), (student, 20), (student, 300)])
def test_what_is_the_same_in_all_directions_has_no_axis(log_density, dim):
    found = [funnel_axes(draws_of_fit(log_density, dim, seed=seed)).shape[1] for seed in range(10)]
    # One candidate in seven hundred is beyond three standard errors by chance.
    assert sum(found) <= 2


def test_outer_points_lie_furthest_along_the_axis():
    draws = draws_of_fit(funnel, 16)
    found = funnel_axes(draws)
    everywhere, along = outer_factors(found)
    # Squared norms have the mean 16 and the sd 32^0.5; these are larger by two such sds.
    further = (1.0 + 2.0 * 32**0.5 / 16.0) ** 0.5
    np.testing.assert_allclose(everywhere, further * np.eye(16), rtol=1e-6)
    np.testing.assert_allclose(along, along.T, atol=1e-6)
    scales, axes = np.linalg.eigh(along)
    num = found.shape[1]
    np.testing.assert_allclose(scales[-num:], 2.0, rtol=1e-5)
    np.testing.assert_allclose(scales[:-num], further, rtol=1e-5)
    assert np.abs(axes[-1, -num:]).max() > 0.8


def test_few_dimensions_and_components_have_no_axes():
    def target_of(dim):
        def model():
            numpyro.sample("x", dist.Normal().expand([dim]).to_event(1))

        return build_target(jax.random.key(0), model, ())

    assert [may_have_axes(target_of(dim)) for dim in (15, 16)] == [False, True]
    fits = [Affine(jnp.full(20, mean), jnp.eye(20)) for mean in (0.0, 5.0)]
    partition = Partition.of(fits, [0.0, 0.0])
    assert not may_have_axes(Component.of(target_of(20), partition, 0))
    everywhere, along = outer_factors(np.zeros((15, 0)))
    np.testing.assert_array_equal(everywhere, along)


def test_unknown_gradients_do_not_count():
    draws = draws_of_fit(funnel, 16)
    some = draws.score.at[::7].set(jnp.nan)
    assert abs(funnel_axes(draws._replace(score=some))[-1, 0]) > 0.8
    assert funnel_axes(draws._replace(score=draws.score * jnp.nan)).shape == (16, 0)
