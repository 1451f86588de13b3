r"""Exact determinants of Jacobians that are a diagonal plus a matrix of low rank.

For `J = diag(g) + U V` with `g: (dim,)` positive, `U: (dim, width)` and `V: (width, dim)`,

    det J = prod(g) det(I + V diag(1/g) U)        (matrix determinant lemma),

so the cost per draw is that of a determinant of size `min(dim, width)`, in any dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


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
