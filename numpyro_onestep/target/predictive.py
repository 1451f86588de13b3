"""Draws of a model's sites from the prior, and of its observations given latent values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import Predictive

from numpyro_onestep.target.arguments import named_arrays
from numpyro_onestep.target.base import Target
from numpyro_onestep.target.simulated import Simulated, fed_back
from numpyro_onestep.target.traces import is_discrete

Arrays = dict[str, np.ndarray]


def prior_draws(target: Target, rng_key: jax.Array, num: int) -> tuple[Arrays, Arrays]:
    """`num` draws of all sites from the prior, observed values left aside.

    Returns:
        Latent and deterministic sites, and observed ones, `(num, *event)` each.

    Raises:
        NotImplementedError: NumPyro's own, for a site without a proper prior.
    """
    with target.precision():
        args, kwargs = target.widened(target.arguments)
        drawn = Predictive(Simulated(_model(target)), num_samples=num)(rng_key, *args, **kwargs)
    sites = {name: _narrowed(value) for name, value in drawn.items() if value.size}
    observed = set(target.observed_data)
    return (
        {name: value for name, value in sites.items() if name not in observed},
        {name: value for name, value in sites.items() if name in observed},
    )


def predictive_draws(
    target: Target,
    rng_key: jax.Array,
    samples: dict[str, Any],
    arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
) -> Arrays:
    """New observations for every draw of the latent sites.

    Discrete latent sites, which the samples lack, are first drawn given the data; with new
    arguments they belong to those, and are drawn from the model.

    Args:
        target: the model with the data of the fit.
        rng_key: for all of it.
        samples: `(n, *event)` by site; only those of the latent sites are used, as deterministic
            ones follow from them.
        arguments: other arguments of the model; those of the target by default.

    Returns:
        Values of the sites that the target observes, `(n, *event)`.

    Raises:
        NotImplementedError: for discrete latent sites that NumPyro cannot draw given the data.
    """
    with target.precision():
        drawn = _drawn(target, rng_key, samples, arguments)
    return {name: _narrowed(value) for name, value in drawn.items()}


def _drawn(
    target: Target,
    rng_key: jax.Array,
    samples: dict[str, Any],
    arguments: tuple[tuple[Any, ...], dict[str, Any]] | None,
) -> dict[str, jax.Array]:
    key_discrete, key_new = jax.random.split(rng_key)
    latent = {name: target.widened(samples[name]) for name in target.program.constrained_shapes}
    model = _model(target)
    args, kwargs = target.widened(target.arguments if arguments is None else arguments)
    if target.enumerates and arguments is None:
        discrete = _discrete_sites(target)
        infer = Predictive(model, latent, infer_discrete=True)
        try:
            inferred = infer(key_discrete, *args, **kwargs)
        except Exception as error:  # from inside funsor, and of any kind
            raise NotImplementedError(
                f"NumPyro cannot draw the discrete sites {sorted(discrete)} given the data, as it"
                " cannot inside `scan`. Draws of whole new data, with these sites drawn from the"
                " model, are to be had by `predict`, which takes the model's arguments"
            ) from error
        latent |= {name: value for name, value in inferred.items() if name in discrete}
    names = list(target.observed_data)
    return Predictive(Simulated(model), latent, return_sites=names)(key_new, *args, **kwargs)


def constant_arrays(target: Target, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Arrays:
    """Arrays among other arguments of the model, by name, that hold no observed values.

    Which ones do is known from the arguments of the target.
    """
    model = target.program.model
    observed = set(named_arrays(model, target.arguments)) - set(target.constant_data)
    named = named_arrays(model, arguments)
    return {name: array for name, array in named.items() if name not in observed}


def drawn_given_data(
    target: Target, arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
) -> dict[str, list[str]]:
    """Observed sites whose draws depend on their own observed values, and through which arguments.

    Autoregressions that take the past from the data are such models; see `target.simulated`.
    """
    arguments = target.arguments if arguments is None else arguments
    return fed_back(target.program.model, arguments, list(target.observed_data))


def given_observations(target: Target) -> Callable[[dict[str, Any]], Any]:
    """The model as a function of the values of its observed sites alone.

    All arguments stay those of the target; what they hold as observed values is replaced.
    """
    args, kwargs = target.arguments
    model = _model(target)

    def conditioned(observed: dict[str, Any]) -> Any:
        return handlers.condition(model, data=observed)(*args, **kwargs)

    return conditioned


def _narrowed(value: jax.Array) -> np.ndarray:
    """On the host, in the default precision, whatever it was computed in."""
    array = np.asarray(value)
    kind = {"f": float, "i": int, "c": complex}.get(array.dtype.kind)
    wide = kind is not None and array.dtype == np.dtype(kind)
    return array.astype(jnp.result_type(kind)) if wide else array


def _model(target: Target) -> Any:
    """The model with its parameters fixed; random keys that it asks for are its own affair."""
    return handlers.substitute(target.program.model, data=target.program.fixed)


def _discrete_sites(target: Target) -> set[str]:
    args, kwargs = target.arguments
    trace = handlers.trace(handlers.seed(_model(target), 0)).get_trace(*args, **kwargs)
    return {name for name, site in trace.items() if is_discrete(site)}
