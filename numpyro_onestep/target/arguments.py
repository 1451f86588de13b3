"""Splitting a model's arguments into array leaves (data) and everything else (static).

The array leaves travel through `jax.jit` as arguments of the compiled program, so new data of the
same shapes neither retraces nor recompiles. What stays behind is a *skeleton*: the nested arguments
with a `Slot` in the place of each array leaf that is passed.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# Rounding of the data, relative to the difference between one value and the next, and to their
# spread: with more than the first something is lost, with less than the second never.
_MAX_ROUNDING, _NO_ROUNDING = 0.1, 1e-5


@dataclasses.dataclass(frozen=True)
class Slot:
    """Place of the array leaf number `index` in a skeleton of arguments."""

    index: int


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array that JAX can trace (scalars of Python or NumPy are not)."""
    if isinstance(leaf, jax.Array):
        return True
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"


def is_floating_array(leaf: Any) -> bool:
    """Whether a leaf is an array of real numbers, as opposed to indices, counts or flags."""
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)


def is_nothing(leaf: Any) -> bool:
    """Select no leaf: every argument stays a constant of the model."""
    del leaf
    return False


def split_arguments(
    arguments: Arguments, select: Callable[[Any], bool]
) -> tuple[tuple[jax.Array, ...], Arguments]:
    """Separate the selected array leaves from the rest.

    Args:
        arguments: the pair (positional, keyword) of the model's arguments.
        select: tells which leaves become data.

    Returns:
        The data leaves as JAX arrays, and the skeleton that holds a `Slot` for each of them.
    """
    data: list[jax.Array] = []

    def visit(leaf: Any) -> Any:
        if not select(leaf):
            return leaf
        data.append(jnp.asarray(leaf))
        return Slot(len(data) - 1)

    skeleton = jax.tree.map(visit, arguments)
    return tuple(data), skeleton


def join_arguments(data: tuple[jax.Array, ...], skeleton: Arguments) -> Arguments:
    """Inverse of `split_arguments`."""
    return jax.tree.map(
        lambda leaf: data[leaf.index] if isinstance(leaf, Slot) else leaf,
        skeleton,
        is_leaf=lambda leaf: isinstance(leaf, Slot),
    )


def refill_arguments(
    model: Callable[..., Any],
    data: tuple[jax.Array, ...],
    skeleton: Arguments,
    arguments: Arguments,
) -> tuple[jax.Array, ...]:
    """Data leaves of new arguments that fit the program compiled for old ones.

    Args:
        model: the model, for the names of its parameters in messages.
        data: data leaves of the old arguments.
        skeleton: skeleton of the old arguments.
        arguments: the new pair (positional, keyword).

    Returns:
        The data leaves of the new arguments, in the order of the old ones.

    Raises:
        ValueError: if structure, shape or dtype differ, or if an argument changed that the compiled
            program holds as a constant.
    """
    old, old_structure = jax.tree_util.tree_flatten_with_path(
        skeleton, is_leaf=lambda leaf: isinstance(leaf, Slot)
    )
    new, new_structure = jax.tree_util.tree_flatten_with_path(arguments)
    if old_structure != new_structure:  # type: ignore[operator]
        raise ValueError(
            "expected model arguments of the same structure as when the target was built, "
            f"{old_structure}; got {new_structure}"
        )
    filled = list(data)
    for (path, before), (_, after) in zip(old, new, strict=True):
        name = argument_name(model, path)
        if isinstance(before, Slot):
            filled[before.index] = _fitting_array(name, data[before.index], after)
        elif not _same_constant(before, after):
            raise ValueError(
                f"expected the argument {name} to be unchanged, because the model uses it as a "
                f"constant (a size, a switch, or an array it cannot trace); got {after!r}. "
                "Build a new target instead."
            )
    return tuple(filled)


def check_representable(model: Callable[..., Any], arguments: Arguments) -> None:
    """Refuses arrays whose values JAX would change: it narrows them without a word.

    Whole numbers that overflow are, and real ones whose rounding is of the size of the differences
    between one value and the next: seconds since 1970, or measurements on top of a large constant.

    Args:
        model: for the names of its parameters in messages.
        arguments: the pair (positional, keyword).

    Raises:
        ValueError: naming the argument.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(arguments)[0]:
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "iuf" and leaf.itemsize == 8:
            with np.errstate(over="ignore"):
                narrow = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype))
            if problem := _lost(leaf, narrow):
                raise ValueError(
                    f"expected values of the argument {argument_name(model, path)} that single"
                    f" precision can hold; got {problem}. Subtract a constant from them, change"
                    " their unit, number labels from 0, or call `numpyro.enable_x64()` before"
                    " anything else"
                )


def _lost(wide: np.ndarray, narrow: np.ndarray) -> str:
    """What narrowing does to values, "" if nothing that matters."""
    if wide.dtype == narrow.dtype or not wide.size:
        return ""
    if wide.dtype.kind in "iu":
        changed = wide[narrow != wide]
        return f"{changed[0]}, which {narrow.dtype} cannot" if changed.size else ""
    known = np.isfinite(wide)
    values = wide[known]
    rounding = np.abs(values - narrow[known]).max(initial=0.0)
    rows = wide.reshape(len(wide), -1) if wide.ndim else wide.reshape(1, 1)
    with np.errstate(invalid="ignore"):
        steps = np.abs(np.diff(rows, axis=0))
    steps = steps[np.isfinite(steps) & (steps > 0.0)]
    if not steps.size:
        return ""
    step = np.median(steps)
    if rounding <= max(_MAX_ROUNDING * step, _NO_ROUNDING * np.std(values)):
        return ""
    return (
        f"values around {np.median(np.abs(values)):.3g} that differ by about {step:.2g} from one to"
        f" the next, and would be rounded by {rounding:.2g}"
    )


def _fitting_array(name: str, before: jax.Array, after: Any) -> jax.Array:
    if not is_array(after):
        raise ValueError(f"expected an array for the argument {name}; got {after!r}")
    array = jnp.asarray(after)
    if array.shape != before.shape or array.dtype != before.dtype:
        raise ValueError(
            f"expected the argument {name} to have shape {before.shape} and dtype {before.dtype}; "
            f"got shape {array.shape} and dtype {array.dtype}"
        )
    return array


def _same_constant(before: Any, after: Any) -> bool:
    if before is after:
        return True
    if is_array(before) or is_array(after):
        return (
            is_array(before)
            and is_array(after)
            and before.shape == after.shape
            and before.dtype == after.dtype
            and np.asarray(before).tobytes() == np.asarray(after).tobytes()
        )
    try:
        return type(before) is type(after) and bool(before == after)
    except (TypeError, ValueError):  # an equality without a plain truth value, as of a data frame
        return False


def argument_name(model: Callable[..., Any], path: tuple[Any, ...]) -> str:
    """Readable name of a leaf of the pair (positional, keyword), such as `'y'` or `'data'['x']`."""
    side, first, *rest = path
    if side.idx == 1:
        name = first.key
    else:
        names = parameter_names(model)
        name = names[first.idx] if first.idx < len(names) else f"argument {first.idx}"
    return f"'{name}'{jax.tree_util.keystr(tuple(rest))}"


def parameter_names(model: Callable[..., Any]) -> list[str]:
    """Names of the model's positional parameters; empty if they cannot be found out."""
    try:
        parameters = inspect.signature(model).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in positional]


def named_arrays(model: Callable[..., Any], arguments: Arguments) -> dict[str, np.ndarray]:
    """Array-valued arguments by readable name, nested ones joined by underscores."""
    found: dict[str, np.ndarray] = {}
    names = parameter_names(model)
    for path, leaf in jax.tree_util.tree_flatten_with_path(arguments)[0]:
        if not is_array(leaf) or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue
        side, first, *rest = path
        if side.idx == 1:
            parts = [str(first.key)]
        else:
            parts = [names[first.idx] if first.idx < len(names) else f"argument_{first.idx}"]
        for key in rest:
            parts.append(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))))
        found["_".join(parts)] = np.asarray(leaf)
    return found
