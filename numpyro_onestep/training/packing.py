"""Optimisers that see parameters packed into few arrays: every array of its own is compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from numpyro_onestep.networks import Params


class Packed(NamedTuple):
    """Parameters in as few arrays as their shapes allow, or what is said of each of these.

    Attributes:
        matrices: stacks of matrices `(num, rows, columns)`, `rows <= columns`, one per shape.
        vector: everything else, `(size,)`.
    """

    matrices: tuple[Any, ...]
    vector: Any


def packed(
    inner: optax.GradientTransformation, *, min_directions: int
) -> optax.GradientTransformation:
    """An optimiser of parameters of any structure from one of `Packed` ones.

    Leaves of three axes are stacks of matrices where no side is below `min_directions`; the inner
    optimiser must treat a matrix as it treats its transpose.
    """

    def is_stack(leaf: jax.Array) -> bool:
        return leaf.ndim == 3 and min(leaf.shape[1:]) >= min_directions

    def pack(params: Params) -> Packed:
        stacks: dict[tuple[int, ...], list[jax.Array]] = {}
        rest = []
        for leaf in jax.tree.leaves(params):
            if is_stack(leaf):
                stacks.setdefault(_flat(leaf).shape[1:], []).append(_flat(leaf))
            else:
                rest.append(leaf.ravel())
        return Packed(tuple(map(jnp.concatenate, stacks.values())), jnp.concatenate(rest))

    def unpack(values: Packed, like: Params) -> Params:
        stacks, rest = {stack.shape[1:]: stack for stack in values.matrices}, values.vector

        def take(leaf: jax.Array) -> jax.Array:
            nonlocal rest
            if is_stack(leaf):
                shape = _flat(leaf).shape[1:]
                mine, stacks[shape] = jnp.split(stacks[shape], [len(leaf)])
                mine = mine if mine.shape == leaf.shape else mine.mT
            else:
                mine, rest = rest[: leaf.size], rest[leaf.size :]
            # Leaves of several types make an array of the widest one.
            return mine.reshape(leaf.shape).astype(leaf.dtype)

        return jax.tree.map(take, like)

    def update(
        gradient: Params, state: optax.OptState, params: Params | None = None
    ) -> tuple[Params, optax.OptState]:
        at = None if params is None else pack(params)
        steps, state = inner.update(pack(gradient), state, at)
        return unpack(steps, gradient), state

    return optax.GradientTransformation(lambda params: inner.init(pack(params)), update)


def _flat(stack: jax.Array) -> jax.Array:
    """Its matrices, lying on their longer side."""
    return stack if stack.shape[1] <= stack.shape[2] else stack.mT
