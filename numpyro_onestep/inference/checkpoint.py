"""Checkpoints of a run: whose they are, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro

from numpyro_onestep import storage
from numpyro_onestep.inference.saving import (
    TOLERANCE,
    float_dtype,
    strategy_form,
)
from numpyro_onestep.target import Target, log_density_at
from numpyro_onestep.training import CheckpointFile, Method

_KIND = "checkpoint"
# Points at which the density of the model must be what it was.
_NUM_CHECKED = 4


def open_checkpoint(
    path: str | os.PathLike[str],
    target: Target,
    rng_key: jax.Array,
    method: Method,
    init_strategy: Callable[..., Any],
) -> CheckpointFile:
    """The file at a path, new or with what an earlier attempt at the same run left there.

    Raises:
        ValueError: for a file of another run, naming what differs, or one that is damaged or no
            checkpoint; without the folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"expected a checkpoint in a folder that exists; got {path}")
    about = _about(target, rng_key, method, init_strategy)
    entries: dict[str, Any] = {}
    if path.exists():
        _, entries = storage.read(path, check=lambda header: _check(header, about, path))
    return CheckpointFile(path, about, entries)


def _about(
    target: Target, rng_key: jax.Array, method: Method, init_strategy: Callable[..., Any]
) -> dict[str, str]:
    """Everything that training is a function of, as text."""
    form = strategy_form(init_strategy)
    return {
        "kind": _KIND,
        "library_version": version("numpyro-onestep"),
        "jax_version": jax.__version__,
        "numpyro_version": numpyro.__version__,
        "float_dtype": float_dtype(),
        "key": str(np.asarray(jax.random.key_data(rng_key)).tolist()),
        "method": repr(method),
        "init_strategy": _name(init_strategy) if form is None else _text(form),
        "sites": str(dict(target.program.unconstrained_shapes)),
        "data": target.digest,
        "log_density": json.dumps(_fingerprint(target)),
    }


def _text(form: dict[str, Any]) -> str:
    return json.dumps(storage.encode(form, {}))


def _name(function: Callable[..., Any]) -> str:
    """Of a function of the user's, or of its type: that is all that there is to compare."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _fingerprint(target: Target) -> list[float | None]:
    """The model's log-density at some points; None where it is not finite."""
    x = 0.5 * jax.random.normal(jax.random.key(0), (_NUM_CHECKED, target.dim))
    values = np.asarray(log_density_at(target, x), np.float64)
    return [float(value) if np.isfinite(value) else None for value in values]


_WORDS = {
    "library_version": "version of numpyro_onestep",
    "jax_version": "version of JAX",
    "numpyro_version": "version of NumPyro",
    "float_dtype": "floating-point precision",
    "key": "key",
    "method": "method",
    "init_strategy": "init_strategy",
    "sites": "model (its latent sites)",
    "data": "data",
}


def _check(header: Mapping[str, Any], about: Mapping[str, str], path: Path) -> None:
    if header.get("kind") != _KIND:
        raise ValueError(f"expected a checkpoint; got a saved {header.get('kind')!r}: {path}")
    differs = [word for name, word in _WORDS.items() if header.get(name) != about[name]]
    if not differs and not _close(header.get("log_density", "[]"), about["log_density"]):
        differs = ["model (its density)"]
    if differs:
        raise ValueError(
            f"expected the checkpoint of this run; got one of another {', '.join(differs)}: {path}."
            " Repeat that run, or remove the file, or name another"
        )


def _close(before: str, now: str) -> bool:
    one, other = (np.array(json.loads(text), np.float64) for text in (before, now))
    return one.shape == other.shape and np.allclose(
        one, other, rtol=TOLERANCE, atol=10.0 * TOLERANCE, equal_nan=True
    )
