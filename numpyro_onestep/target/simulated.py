"""A model as a simulator of its data: observed values left aside, wherever they are.

NumPyro's `uncondition` draws observed sites anew, which does not reach what depends on them inside
`scan` and `cond`: no handler from outside acts there before the whole body is done. A series that
feeds itself would go on from its observed values, and each new value be drawn given the observed
past. What a handler cannot see is a model that computes with the data themselves, as
autoregressions written with `y[:-1]` do: :func:`fed_back` finds it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpyro
from jax.interpreters.partial_eval import dce_jaxpr
from numpyro import handlers
from numpyro.contrib.control_flow.cond import cond_wrapper
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.primitives import Messenger

from numpyro_onestep.target.arguments import (
    Arguments,
    Slot,
    argument_name,
    is_array,
    is_floating_array,
    join_arguments,
    split_arguments,
)
from numpyro_onestep.target.traces import Trace

Model = Callable[..., Any]

# Where the functions are among the arguments of NumPyro's control flow.
_BODIES = {scan_wrapper: (0,), cond_wrapper: (1, 2)}


class Simulated(Messenger):
    """Draws all observed sites, those inside `scan` and `cond` before anything depends on them."""

    def process_message(self, msg: dict[str, Any]) -> None:
        """Makes observed sites latent ones, and puts the bodies of control flow under itself."""
        if msg["type"] == "control_flow":
            bodies = _BODIES.get(msg["fn"], ())
            msg["args"] = tuple(
                Simulated(argument) if i in bodies else argument
                for i, argument in enumerate(msg["args"])
            )
            # What `condition` fixes would be fixed around the body, out of reach again.
            stack = msg["kwargs"]["substitute_stack"]
            msg["kwargs"]["substitute_stack"] = [part for part in stack if part[0] != "condition"]
        elif msg["type"] == "sample" and msg["is_observed"]:
            msg["is_observed"] = False
            msg["value"] = None
            if msg["kwargs"]["rng_key"] is None:
                # A seed passes over sites that have a value when it sees them.
                msg["kwargs"]["rng_key"] = numpyro.prng_key()


def fed_back(model: Model, arguments: Arguments, sites: list[str]) -> dict[str, list[str]]:
    """Arguments that hold the values of observed sites and enter their distributions too.

    Draws of such a site are given its observed values, whatever simulates them. Found out from the
    program that JAX makes of the model, without computing it; data that the model does not take as
    an argument, or cannot be traced with, stay unseen.

    Args:
        model: with its parameters fixed.
        arguments: positional and keyword arguments of the model.
        sites: names of the observed sites.

    Returns:
        Names of arguments, as in messages, by site; sites without any are left out.
    """
    for select in (is_array, is_floating_array):
        data, skeleton = split_arguments(arguments, select)
        try:
            # Of the sites, those that these arguments make observed.
            observed = _used(functools.partial(_observed, model, skeleton, sites), data)
            drawn = _used(functools.partial(_drawn, model, skeleton, list(observed)), data)
        except Exception:  # noqa: S112 - whatever a model does with an array it cannot have
            continue
        names = _names(model, skeleton)
        both = {name: observed[name] & drawn[name] for name in observed}
        return {name: [names[i] for i in sorted(slots)] for name, slots in both.items() if slots}
    return {}


def _observed(
    model: Model, skeleton: Arguments, sites: list[str], data: tuple[jax.Array, ...]
) -> dict[str, Any]:
    trace = _trace(model, skeleton, data)
    observed = [name for name in sites if name in trace and trace[name]["is_observed"]]
    return {name: trace[name]["value"] for name in observed}


def _drawn(
    model: Model, skeleton: Arguments, sites: list[str], data: tuple[jax.Array, ...]
) -> dict[str, Any]:
    trace = _trace(Simulated(model), skeleton, data)
    return {name: trace[name]["value"] for name in sites}


def _trace(model: Model, skeleton: Arguments, data: tuple[jax.Array, ...]) -> Trace:
    args, kwargs = join_arguments(data, skeleton)
    return handlers.trace(handlers.seed(model, 0)).get_trace(*args, **kwargs)


def _used(
    function: Callable[[tuple[jax.Array, ...]], dict[str, Any]], data: tuple[jax.Array, ...]
) -> dict[str, set[int]]:
    """Numbers of the arrays of `data` that each output of the function depends on."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(data)
    names = list(jax.tree.leaves({name: name for name in shapes}))
    used = {}
    for name in names:
        _, inputs = dce_jaxpr(closed.jaxpr, [name == other for other in names])
        used[name] = {i for i, needed in enumerate(inputs) if needed}
    return used


def _names(model: Model, skeleton: Arguments) -> dict[int, str]:
    """Names of the arguments that the slots of a skeleton stand for."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        skeleton, is_leaf=lambda leaf: isinstance(leaf, Slot)
    )
    return {
        leaf.index: argument_name(model, path) for path, leaf in leaves if isinstance(leaf, Slot)
    }
