"""Finished inferences in portable files: what is stored, and how it finds back to its model."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.infer import initialization

from numpyro_onestep import storage
from numpyro_onestep.inference.run import Fit, Run
from numpyro_onestep.inference_data import from_plain, to_plain
from numpyro_onestep.target import Target, build_target, log_density_at

_KIND = "OneStepInference"
# What is not an option of the inference but made by a run, the model's own code, or the place of a
# checkpoint, which belongs to the machine.
_MADE = ("sampler", "_init_strategy", "_fit", "_run", "_result", "_checkpoint")
_STRATEGIES = {
    name: getattr(initialization, name)
    for name in (
        "init_to_feasible",
        "init_to_mean",
        "init_to_median",
        "init_to_sample",
        "init_to_uniform",
        "init_to_value",
    )
    if hasattr(initialization, name)
}
# Draws at which the density of the model must be what it was.
_NUM_CHECKED = 8
TOLERANCE = 1e-3


def save_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes the attributes of a finished inference; see `OneStepInference.save`."""
    fit: Fit = state["_fit"]
    run: Run | None = state["_run"]
    result = state["_result"]
    content = {
        "options": {name: value for name, value in state.items() if name not in _MADE},
        "init_strategy": strategy_form(state["_init_strategy"]),
        "layout": dict(fit.target.program.unconstrained_shapes),
        "fixed": fit.target.program.fixed,
        "digest": fit.target.digest,
        "fit": _fields(fit, without=("target", "args", "kwargs")),
        "run": None if run is None else _fields(run, without=("fit",)),
        "result": None if result is None else to_plain(result),
        **_stored_arguments(fit),
    }
    about = {
        "kind": _KIND,
        "library_version": version("numpyro-onestep"),
        "numpyro_version": numpyro.__version__,
        "jax_version": jax.__version__,
        "float_dtype": float_dtype(),
    }
    storage.write(path, content, about)


def load_state(
    path: str | os.PathLike[str],
    model: Callable[..., Any],
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    fresh: Mapping[str, Any],
) -> dict[str, Any]:
    """Attributes of the inference in a file; see `OneStepInference.load`.

    Args:
        path: of the file.
        model: the model that was fitted.
        arguments: positional and keyword ones of the model; none for those in the file.
        fresh: attributes of a new inference of this version, whose names the file must have.
    """
    _, content = storage.read(path, check=_check_header)
    if set(content["options"]) != set(fresh) - set(_MADE):
        raise ValueError(
            f"expected a file with the options of this version, {sorted(set(fresh) - set(_MADE))};"
            f" got {sorted(content['options'])}: {path}"
        )
    given = bool(arguments[0] or arguments[1])
    if not given:
        if content["arguments"] is None:
            raise ValueError(
                "expected the arguments of the model, load(path, model, *args, **kwargs), because"
                f" the file could not hold them: {content['why_not']}"
            )
        arguments = content["arguments"]
    strategy = _strategy(content["init_strategy"])
    run_fields = content["run"]
    target = content["fit"]["trained"].in_precision(_target(model, arguments, strategy, content))
    if run_fields is not None:
        # In the user's coordinates, which the draws are in, and in the precision of the run.
        _check_density(target, run_fields["draws"])
    fit = Fit(target=target, args=arguments[0], kwargs=arguments[1], **content["fit"])
    return {
        **content["options"],
        "_init_strategy": strategy,
        "_fit": fit,
        "_run": None if run_fields is None else Run(fit=fit, **run_fields),
        "_result": None if content["result"] is None else from_plain(content["result"]),
    }


def float_dtype() -> str:
    """The precision of this process."""
    return str(np.dtype(jnp.result_type(float)))


def _check_header(header: Mapping[str, Any]) -> None:
    if header.get("kind") != _KIND:
        raise ValueError(f"expected a saved {_KIND}; got a saved {header.get('kind')!r}")
    if header.get("float_dtype") != float_dtype():
        raise ValueError(
            f"expected a process in {header.get('float_dtype')}, in which the sampler was trained;"
            f" got one in {float_dtype()}: set `jax_enable_x64` as it was"
        )


def _fields(value: Any, without: tuple[str, ...]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value) if field.name not in without]
    return {name: getattr(value, name) for name in names}


def _stored_arguments(fit: Fit) -> dict[str, Any]:
    """The model's arguments, if they are arrays and other plain values; else why not."""
    arguments = (fit.args, fit.kwargs)
    try:
        storage.encode(arguments, {}, "the model's arguments")
    except storage.UnknownValue as error:
        return {"arguments": None, "why_not": str(error)}
    return {"arguments": arguments, "why_not": ""}


def strategy_form(strategy: Any) -> dict[str, Any] | None:
    """One of NumPyro's strategies by name, with its keywords; None for a function of the user's."""
    bare, keywords = strategy, {}
    if isinstance(strategy, functools.partial) and not strategy.args:
        bare, keywords = strategy.func, dict(strategy.keywords)
    for name, known in _STRATEGIES.items():
        if bare is known:
            return {"name": name, "keywords": keywords}
    return None


def _strategy(form: dict[str, Any] | None) -> Callable[..., Any]:
    if form is None:
        warnings.warn(
            "the init_strategy was a function of its own, which the file cannot hold:"
            " init_to_uniform takes its place",
            stacklevel=4,
        )
        return initialization.init_to_uniform
    bare = _STRATEGIES[form["name"]]
    return functools.partial(bare, **form["keywords"]) if form["keywords"] else bare


def _target(
    model: Callable[..., Any],
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    strategy: Callable[..., Any],
    content: Mapping[str, Any],
) -> Target:
    target = build_target(jax.random.key(0), model, *arguments, init_strategy=strategy)
    layout = dict(target.program.unconstrained_shapes)
    if layout != content["layout"]:
        raise ValueError(
            f"expected the model that was fitted, with latent sites {content['layout']}; got one"
            f" with {layout}"
        )
    if target.digest != content["digest"]:
        raise ValueError(
            "expected the data that the sampler was fitted to; got others. Load the file without"
            " them, and `refit` to the new ones"
        )
    if content["fixed"]:
        # Values that depend on the key of the run.
        program = dataclasses.replace(target.program, fixed=content["fixed"])
        target = dataclasses.replace(target, program=program)
    return target


def _check_density(target: Target, draws: Any) -> None:
    """Fails for a model that has the sites of the fitted one and is another."""
    known = np.flatnonzero(np.isfinite(draws.log_density))[:_NUM_CHECKED]
    if not known.size:
        return
    before = draws.log_density[known]
    now = np.asarray(log_density_at(target, draws.x[known]), np.float64)
    if not np.allclose(now, before, rtol=TOLERANCE, atol=10.0 * TOLERANCE):
        raise ValueError(
            "expected the model that was fitted; got one of another density: log densities of the"
            f" same draws were {before.round(3).tolist()} and are {now.round(3).tolist()}"
        )
