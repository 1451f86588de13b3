r"""Exact determinants of Jacobians that are a diagonal plus a matrix of low rank.

For `J = diag(g) + U V` with `g: (dim,)` positive, `U: (dim, width)` and `V: (width, dim)`,

    det J = prod(g) det(I + V diag(1/g) U)        (matrix determinant lemma),

so the cost per draw is that of a determinant of size `min(dim, width)`, in any dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Largest matrices that are inverted by elimination, and the largest error of an inverse, as an
# element of `K K^-1 - I`.
_ELIMINATED = 16
_MAX_ERROR = 1e-2


class DiagonalPlusLowRank(NamedTuple):
    """`diag(diagonal) + left @ right`.

    Attributes:
        diagonal: positive entries `(dim,)`.
        left: `(dim, width)`.
        right: `(width, dim)`.
    """

    diagonal: jax.Array
    left: jax.Array
    right: jax.Array


def core(matrix: DiagonalPlusLowRank) -> tuple[jax.Array, jax.Array]:
    """The small dense matrix that carries the determinant.

    Returns:
        `K: (min(dim, width),) * 2` and a scalar `l` with `log|det J| = l + log|det K|` and
        `sign det J = sign det K`.
    """
    diagonal, left, right = matrix
    dim, width = left.shape
    if dim <= width:
        return jnp.diag(diagonal) + left @ right, jnp.zeros((), diagonal.dtype)
    return jnp.eye(width, dtype=left.dtype) + (right / diagonal) @ left, jnp.log(diagonal).sum()


def slogdet(matrix: DiagonalPlusLowRank) -> tuple[jax.Array, jax.Array]:
    """Sign and log absolute value of the determinant."""
    small, outer = core(matrix)
    sign, log_abs = jnp.linalg.slogdet(small)
    return sign, outer + log_abs


def solve(matrix: DiagonalPlusLowRank, vector: jax.Array) -> jax.Array:
    """`J^-1 v` for `v: (dim,)`."""
    diagonal, left, right = matrix
    small, _ = core(matrix)
    if left.shape[0] <= left.shape[1]:
        return jnp.linalg.solve(small, vector)
    scaled = vector / diagonal
    return scaled - (left @ jnp.linalg.solve(small, right @ scaled)) / diagonal


def inverses(cores: jax.Array) -> jax.Array:
    """Inverses of many matrices near the identity, `(n, size, size)`, several times as fast as LU.

    By halves (Schur complements), which are products of matrices, and with pivots of the diagonal
    alone. NaN where these did not serve: a map on its way to a fold.
    """
    found = _by_halves(cores)
    error = jnp.abs(cores @ found - jnp.eye(cores.shape[-1], dtype=cores.dtype)).max(axis=(1, 2))
    return jnp.where((error < _MAX_ERROR)[:, None, None], found, jnp.nan)


def _by_halves(matrices: jax.Array) -> jax.Array:
    size = matrices.shape[-1]
    if size <= _ELIMINATED:
        return _eliminated(matrices)
    half = size // 2
    a, b = matrices[:, :half, :half], matrices[:, :half, half:]
    c, d = matrices[:, half:, :half], matrices[:, half:, half:]
    a = _by_halves(a)
    ab, ca = a @ b, c @ a
    d = _by_halves(d - c @ ab)
    dca = d @ ca
    upper = jnp.concatenate([a + ab @ dca, -ab @ d], axis=2)
    return jnp.concatenate([upper, jnp.concatenate([-dca, d], axis=2)], axis=1)


def _eliminated(matrices: jax.Array) -> jax.Array:
    """Inverses by Gauss-Jordan elimination in place, all matrices side by side."""
    size = matrices.shape[-1]
    indices = jnp.arange(size)[:, None]

    def eliminate(k: jax.Array, rest: jax.Array) -> jax.Array:
        row = jnp.where(indices == k, 1.0, rest[k]) / rest[k, k]
        others = jnp.where(indices == k, 0.0, rest) - rest[:, k, None] * row
        return jnp.where((indices == k)[:, None], row, others)

    by_element = jax.lax.fori_loop(0, size, eliminate, jnp.moveaxis(matrices, 0, -1))
    return jnp.moveaxis(by_element, -1, 0)


def solve_transposed(
    matrix: DiagonalPlusLowRank, inverse_core: jax.Array, vector: jax.Array
) -> jax.Array:
    """`J^-T v` for `v: (dim,)`, given the inverse of the matrix that `core` returns."""
    diagonal, left, right = matrix
    if left.shape[0] <= left.shape[1]:
        return inverse_core.T @ vector
    scaled = vector / diagonal
    return scaled - (right.T @ (inverse_core.T @ (left.T @ scaled))) / diagonal


def gradient(matrix: DiagonalPlusLowRank, inverse_core: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gradients of `log|det J|` with respect to the diagonal, `(dim,)`, and `left: (dim, width)`.

    From `d log|det J| = tr(J^-1 dJ)`, given the inverse of the matrix that `core` returns: one
    product of matrices, where the derivative of `core` takes three.
    """
    diagonal, left, right = matrix
    if left.shape[0] <= left.shape[1]:
        towards_left = (right @ inverse_core).T
        towards_diagonal = jnp.diagonal(inverse_core)
    else:
        towards_left = (inverse_core @ (right / diagonal)).T
        towards_diagonal = (1.0 - (left * towards_left).sum(axis=1)) / diagonal
    return towards_diagonal, towards_left
