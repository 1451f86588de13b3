"""Predictions of several models, mixed by model probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr

from numpyro_onestep.host_random import host_generator
from numpyro_onestep.importance import systematic_indices
from numpyro_onestep.inference_data import group_dataset, group_names, wrap_groups

Predictions = str | Mapping[str, Mapping[str, Any]]

_GIVEN_GROUP = "predictions"


def average(
    rng_key: jax.Array,
    results: Mapping[str, Any],
    probability: Mapping[str, float],
    predictions: Predictions,
    num_samples: int | None,
) -> Any:
    """See `EvidenceComparison.average_predictions`."""
    group = predictions if isinstance(predictions, str) else _GIVEN_GROUP
    draws = {name: _draws(name, results[name], predictions) for name in probability}
    sites = _common_sites(draws)
    available = {name: dataset.sizes["draw"] for name, dataset in draws.items()}
    num = min(available.values()) if num_samples is None else num_samples
    if isinstance(num, bool) or not isinstance(num, int | np.integer) or num < 1:
        raise ValueError(f"expected num_samples to be a positive int; got {num_samples!r}")
    rng = host_generator(rng_key)
    names = list(probability)
    log_weight = np.log(np.maximum(list(probability.values()), 1e-300))
    counts = np.bincount(systematic_indices(rng, log_weight, int(num)), minlength=len(names))
    parts, origin = [], []
    for name, count in zip(names, counts, strict=True):
        chosen = _choose(rng, available[name], int(count))
        parts.append(draws[name][sites].isel(draw=chosen).drop_vars("draw", errors="ignore"))
        origin += [name] * int(count)
    # Shuffled: the draws of one chain should not come sorted by model.
    order = rng.permutation(int(num))
    mixed = xr.concat(parts, dim="draw", join="override", coords="minimal", compat="override")
    mixed = mixed.isel(draw=order).expand_dims(chain=[0])
    mixed = mixed.assign_coords(
        draw=np.arange(int(num)), model=("draw", np.asarray(origin)[order].astype(str))
    )
    groups = {group: mixed.transpose("chain", "draw", ...)}
    first = results[names[0]]
    if group == "posterior_predictive" and "observed_data" in group_names(first):
        groups["observed_data"] = group_dataset(first, "observed_data")
    return wrap_groups(groups, {"averaged_over": names})


def _draws(name: str, result: Any, predictions: Predictions) -> xr.Dataset:
    """Predictive draws of one model with one axis `draw`."""
    if isinstance(predictions, str):
        if predictions not in group_names(result):
            raise ValueError(
                f"model {name!r}: expected a group {predictions!r} in its result; got"
                f" {group_names(result)}"
            )
        dataset = group_dataset(result, predictions)
        stacked = dataset.stack(_sample=("chain", "draw"))
        return stacked.drop_vars(["_sample", "chain", "draw"]).rename(_sample="draw")
    if name not in predictions:
        raise ValueError(f"model {name!r}: expected its predictions; got those of {[*predictions]}")
    arrays = {str(site): np.asarray(value) for site, value in predictions[name].items()}
    if len({array.shape[:1] for array in arrays.values()}) != 1 or not all(
        array.ndim and len(array) for array in arrays.values()
    ):
        shapes = {site: array.shape for site, array in arrays.items()}
        raise ValueError(f"model {name!r}: expected predictions of shape (n, ...); got {shapes}")
    return xr.Dataset(
        {
            site: (("draw", *(f"{site}_dim_{axis}" for axis in range(array.ndim - 1))), array)
            for site, array in arrays.items()
        }
    )


def _common_sites(draws: Mapping[str, xr.Dataset]) -> list[str]:
    datasets = list(draws.values())
    sites = [
        str(site) for site in datasets[0].data_vars if all(site in other for other in datasets)
    ]
    if not sites:
        found = {name: list(dataset.data_vars) for name, dataset in draws.items()}
        raise ValueError(f"expected a predicted site that all models share; got {found}")
    for site in sites:
        shapes = {name: _event_sizes(dataset[site]) for name, dataset in draws.items()}
        if len(set(map(tuple, shapes.values()))) > 1:
            raise ValueError(f"expected one shape of site {site!r} in all models; got {shapes}")
    return sites


def _event_sizes(array: xr.DataArray) -> list[tuple[Any, int]]:
    return [(dim, size) for dim, size in array.sizes.items() if dim != "draw"]


def _choose(rng: np.random.Generator, available: int, count: int) -> np.ndarray:
    """`count` draws out of those available: all different, or every one about equally often."""
    whole, rest = divmod(count, available)
    parts = [np.tile(np.arange(available), whole), rng.choice(available, rest, replace=False)]
    return np.concatenate(parts)
