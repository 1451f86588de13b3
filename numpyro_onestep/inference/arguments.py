"""What the methods of the facade ask of their arguments, and the errors otherwise."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np

_Part = TypeVar("_Part")


def required(part: _Part | None) -> _Part:
    """What a finished run leaves, or the error that there is none."""
    if part is None:
        raise RuntimeError("expected a finished run: call `run` first")
    return part


def check_positive(name: str, value: Any) -> None:
    """Fails unless the value is a whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"expected {name} to be a positive int; got {value!r}")


def typed_key(rng_key: Any) -> jax.Array:
    """The key, typed: programs compiled for legacy keys differ in rounding, and so do the runs.

    Raises:
        ValueError: if it is not one key, typed or legacy.
    """
    try:
        jax.random.fold_in(rng_key, 0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected one key such as jax.random.key(0); got {rng_key!r}") from error
    # The data of a legacy key is the key itself.
    return jax.random.wrap_key_data(jax.random.key_data(rng_key), impl=jax.random.key_impl(rng_key))


def check_concrete(method: str, *values: Any) -> None:
    """Fails inside `jax.jit`, `jax.vmap` and the like, where there are no numbers to decide on."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values)):
        raise TypeError(
            f"expected `{method}` outside of jax.jit and jax.vmap, since it decides on the host "
            "what to do next; got a tracer. For many data sets there is `run_many`; `refit` and "
            "`sample` compile nothing again."
        )
