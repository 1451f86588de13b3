"""Determinants and solves of a diagonal plus a matrix of low rank, against dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from stacks import x64  # noqa: F401

from numpyro_onestep import log_det
from numpyro_onestep.log_det import DiagonalPlusLowRank

pytestmark = pytest.mark.usefixtures("x64")

SIZES = [(1, 1), (1, 4), (3, 8), (5, 5), (8, 3), (60, 7)]  # (dim, width)


def random_matrix(dim, width, seed):
    rng = np.random.default_rng(seed)
    matrix = DiagonalPlusLowRank(
        jnp.asarray(np.exp(rng.standard_normal(dim))),
        jnp.asarray(rng.standard_normal((dim, width))),
        jnp.asarray(rng.standard_normal((width, dim)) / np.sqrt(dim)),
    )
    return matrix, np.diag(matrix.diagonal) + np.asarray(matrix.left @ matrix.right)


# Several seeds, so that both signs occur.
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dim", "width"), SIZES)
def test_against_dense(dim, width, seed):
    matrix, dense = random_matrix(dim, width, seed)
    sign, log_abs = log_det.slogdet(matrix)
    want_sign, want = np.linalg.slogdet(dense)
    assert sign == want_sign
    assert_allclose(log_abs, want, rtol=1e-9, atol=1e-9)
    small, outer = log_det.core(matrix)
    assert small.shape == (min(dim, width),) * 2
    vector = jnp.asarray(np.random.default_rng(seed + 100).standard_normal(dim))
    assert_allclose(log_det.solve(matrix, vector), np.linalg.solve(dense, vector), rtol=1e-7)
    transposed = log_det.solve_transposed(matrix, jnp.linalg.inv(small), vector)
    assert_allclose(transposed, np.linalg.solve(dense.T, vector), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("dim", "width"), SIZES)
def test_gradient_against_automatic_differentiation(dim, width):
    matrix, _ = random_matrix(dim, width, 0)
    want = jax.grad(lambda matrix: log_det.slogdet(matrix)[1])(matrix)
    found = log_det.gradient(matrix, jnp.linalg.inv(log_det.core(matrix)[0]))
    assert_allclose(found[0], want.diagonal, rtol=1e-7, atol=1e-9)
    assert_allclose(found[1], want.left, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 8, 16, 17, 35, 61, 64])
def test_inverses(size):
    rng = np.random.default_rng(size)
    matrices = np.eye(size) + rng.standard_normal((20, size, size)) * 0.5 / np.sqrt(size)
    found = log_det.inverses(jnp.asarray(matrices))
    assert_allclose(found, np.linalg.inv(matrices), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("size", [2, 40])
def test_an_inverse_that_needs_other_pivots_is_not_a_number(size):
    # A rotation by a right angle has no element on its diagonal, and an inverse.
    turned = np.eye(size)
    turned[:2, :2] = [[0.0, 1.0], [-1.0, 0.0]]
    found = np.asarray(log_det.inverses(jnp.asarray(np.stack([turned, np.eye(size)]))))
    assert np.isnan(found[0]).all()
    assert_allclose(found[1], np.eye(size))


def test_both_signs_occur_in_the_table():
    signs = {
        float(log_det.slogdet(random_matrix(dim, width, seed)[0])[0])
        for dim, width in SIZES
        for seed in range(4)
    }
    assert signs == {-1.0, 1.0}
