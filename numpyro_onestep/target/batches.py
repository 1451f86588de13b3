"""Functions of a target at many points, in batches where its data are large.

`vmap` over n points of a density with N data values holds n times N of them at once: 2000 points
and a million rows of ten columns take 30 GB. Batches bound that, and change nothing where the data
are small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

# Points times data values that one batch may have; 2000 points of 130,000 values still are one.
_VALUES_PER_BATCH = 2**28


def over_points(function: Callable[[jax.Array], Any], target: Any, points: jax.Array) -> Any:
    """`jax.vmap(function)(points)`, points `(n, dim)`, in as few equal batches as memory allows.

    Args:
        function: of one point; evaluates the density of `target`.
        target: a pytree that holds the data.
        points: `(n, dim)`.
    """
    values = sum(leaf.size for leaf in jax.tree.leaves(target))
    return in_batches(function, points, values)


def in_batches(function: Callable[[Any], Any], points: Any, values: int) -> Any:
    """`jax.vmap(function)(points)` in as few equal batches as memory allows.

    Args:
        function: of one point.
        points: a pytree of arrays with a leading axis of one length.
        values: numbers that one evaluation holds at a time.
    """
    num = len(jax.tree.leaves(points)[0])
    largest = max(1, _VALUES_PER_BATCH // max(values, 1))
    if num <= largest:
        return jax.vmap(function)(points)
    # A remainder would be compiled as a program of its own.
    batch = max(size for size in range(1, largest + 1) if num % size == 0)
    return jax.lax.map(function, points, batch_size=batch)
