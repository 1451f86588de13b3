"""Groups of predictive draws, in the shapes and under the names that ArviZ users know."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np
import xarray as xr

from numpyro_onestep.inference.run import Run
from numpyro_onestep.inference_data import SAMPLE_DIMS, AxisNames, argument_names, make_dataset
from numpyro_onestep.target import (
    Target,
    constant_arrays,
    drawn_given_data,
    predictive_draws,
    prior_draws,
)


def prior_groups(
    target: Target, names: AxisNames, rng_key: jax.Array, num: int
) -> dict[str, xr.Dataset]:
    """The groups `prior` and `prior_predictive`, one chain of `num` draws."""
    _warn_of_data(target)
    latent, observed = prior_draws(target, rng_key, num)
    groups = {"prior": latent, "prior_predictive": observed}
    return {
        group: make_dataset({k: v[None] for k, v in sites.items()}, SAMPLE_DIMS, names)
        for group, sites in groups.items()
        if sites
    }


def posterior_predictive_groups(
    run: Run, names: AxisNames, rng_key: jax.Array
) -> dict[str, xr.Dataset]:
    """The group `posterior_predictive`: new observations for every draw of the posterior."""
    _warn_of_data(run.fit.target)
    drawn = _predict(run, rng_key, None)
    return {"posterior_predictive": make_dataset(drawn, SAMPLE_DIMS, names)}


def prediction_groups(
    run: Run,
    names: AxisNames,
    rng_key: jax.Array,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
) -> dict[str, xr.Dataset]:
    """The groups `predictions` and `predictions_constant_data`, under other arguments."""
    _warn_of_data(run.fit.target, arguments)
    drawn = _predict(run, rng_key, arguments)
    given = constant_arrays(run.fit.target, arguments)
    sites = {name: value.shape[len(SAMPLE_DIMS) :] for name, value in drawn.items()}
    given_shapes = {name: value.shape for name, value in given.items()}
    shapes = sites | given_shapes
    sizes = {
        dim: size
        for name, shape in shapes.items()
        for dim, size in zip(names.dims.get(name, ()), shape, strict=False)
    }
    # Labels of the old rows say nothing of new ones; those of other axes still hold.
    coords = {
        dim: labels
        for dim, labels in names.coords.items()
        if sizes.get(dim, labels.size) == labels.size
    }
    names = AxisNames(names.dims, coords)
    groups = {"predictions": make_dataset(drawn, SAMPLE_DIMS, names)}
    if given:
        own = argument_names(given_shapes, sites, names)
        groups["predictions_constant_data"] = make_dataset(given, (), own, cut=True)
    return groups


def _predict(
    run: Run, rng_key: jax.Array, arguments: tuple[tuple[Any, ...], dict[str, Any]] | None
) -> dict[str, np.ndarray]:
    samples = run.posterior(run.indices.reshape(-1))
    drawn = predictive_draws(run.fit.target, rng_key, samples, arguments)
    if not drawn:
        raise ValueError("expected a model with an observed site to predict; got none")
    shape = run.indices.shape
    return {name: value.reshape((*shape, *value.shape[1:])) for name, value in drawn.items()}


def _warn_of_data(
    target: Target, arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
) -> None:
    for site, names in drawn_given_data(target, arguments).items():
        warnings.warn(
            f"the draws of site '{site}' are given its observed values, not simulated without"
            f" them: the model computes with the data in {' and '.join(names)}, as an"
            " autoregression on the observed past does. To simulate whole series, let each value"
            " follow from the one before: inside `numpyro.contrib.control_flow.scan`, hand on what"
            " `numpyro.sample` returns in place of the observed value",
            stacklevel=4,  # the caller of the public method
        )
