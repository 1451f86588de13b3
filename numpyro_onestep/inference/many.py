"""Many runs in one call: several models, or one model and several data sets."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from tqdm.auto import tqdm

from numpyro_onestep.inference.arguments import required, typed_key
from numpyro_onestep.inference.facade import OneStepInference

_Name = TypeVar("_Name", bound=Hashable)


def run_many(
    rng_key: jax.Array,
    runs: Mapping[_Name, tuple[Any, ...]],
    *,
    progress_bar: bool = True,
) -> dict[_Name, OneStepInference]:
    """Runs several models, or one model on several data sets.

    Entries that name the same inference, with data of the same structure, shapes and types, share
    its compiled programs and its sampler: the first of them is a `run`, unless the inference has
    been run before, and each later one a `refit` of the last that was not `unreliable`. All checks
    are those of a run of its own.

    Ctrl-C ends it with the runs that are finished and the one under way, as `run` leaves it.

    Args:
        rng_key: a typed or a legacy key; the result is a function of it.
        runs: by name, an inference and the positional arguments of its model, and keyword
            arguments where there are any: `(inference, (x, y))` or `(inference, (x,), {"y": y})`.
        progress_bar: a bar over the runs; always off where the variable `CI` is set.

    Returns:
        By name, in the order of `runs`, a finished copy of the inference, as `compare_evidence`
        takes them. The ones that were handed over are not changed. Runs that failed are missing,
        and a warning names each with its cause, as it names those whose verdict is `unreliable`.

    Raises:
        ValueError: for no runs, an entry of another form, or an inference with a checkpoint, since
            several runs cannot share one file.
        Exception: that of the first run, where none succeeded.
        KeyboardInterrupt: before anything is there.

    Example:
        >>> fitted = run_many(jax.random.key(0), {
        ...     "pooled": (OneStepInference(pooled), (x, y)),
        ...     "hierarchical": (OneStepInference(hierarchical), (x, y)),
        ... })
        >>> compare_evidence(fitted)
    """
    rng_key = typed_key(rng_key)
    entries = {name: _entry(name, value) for name, value in runs.items()}
    if not entries:
        raise ValueError("expected at least one run; got none")
    finished: dict[_Name, OneStepInference] = {}
    failed: dict[_Name, Exception] = {}
    latest: dict[tuple[Hashable, ...], OneStepInference] = {}
    bar = tqdm(entries.items(), disable=not progress_bar or bool(os.environ.get("CI")), desc="runs")
    try:
        for i, (name, (inference, args, kwargs)) in enumerate(bar):
            bar.set_postfix_str(str(name))
            kind = (id(inference), *_shapes(args, kwargs))
            fitted = copy.copy(latest.get(kind, inference))
            fitted._progress_bar = False
            key = jax.random.fold_in(rng_key, i)
            try:
                _fit(fitted, key, args, kwargs)
            except (ValueError, RuntimeError, NotImplementedError) as error:
                failed[name] = error
                continue
            fitted._progress_bar = inference._progress_bar
            finished[name] = fitted
            if kind not in latest or fitted.verdict.label != "unreliable":
                latest[kind] = fitted
            if required(fitted._fit).history.stopped == "interrupted":
                break
    except KeyboardInterrupt:
        if not finished:
            raise
    if not finished:
        raise next(iter(failed.values()))
    _warn(finished, failed)
    return finished


def _entry(
    name: Any, value: tuple[Any, ...]
) -> tuple[OneStepInference, tuple[Any, ...], dict[str, Any]]:
    match value:
        case OneStepInference() as inference, tuple() as args:
            kwargs: dict[str, Any] = {}
        case OneStepInference() as inference, tuple() as args, dict() as kwargs:
            pass
        case _:
            raise ValueError(
                f"expected the run {name!r} to be (inference, arguments) or (inference, arguments,"
                f" keyword arguments), a tuple and a dict; got {value!r}"
            )
    if inference._checkpoint is not None:
        raise ValueError(
            f"expected inferences without a checkpoint, which is of one run; got one in {name!r}"
        )
    return inference, args, kwargs


def _shapes(*arguments: Any) -> tuple[Hashable, ...]:
    leaves, structure = jax.tree.flatten(arguments)
    return structure, *map(np.shape, leaves)


def _fit(
    inference: OneStepInference, rng_key: jax.Array, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        # Of the verdict: said at the end, by name.
        warnings.filterwarnings("ignore", "the verdict on this run")
        if inference._fit is not None:
            try:
                inference.refit(rng_key, *args, **kwargs)
                return
            except ValueError:
                pass  # Other types or constants; anything else is for `run` to name.
        inference.run(rng_key, *args, **kwargs)


def _warn(finished: Mapping[Any, OneStepInference], failed: Mapping[Any, Exception]) -> None:
    unreliable = [n for n, fitted in finished.items() if fitted.verdict.label == "unreliable"]
    said = [f"the run {name!r} failed: {error}" for name, error in failed.items()]
    if unreliable:
        names = ", ".join(map(repr, unreliable))
        said.append(f"the verdict is 'unreliable' on {names}: `diagnose()` of each says why")
    for text in said:
        warnings.warn(text, stacklevel=3)  # the caller of `run_many`
