"""Names for ArviZ: dimensions and coordinates from plates, and the observed values."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from numpyro_onestep.target.traces import Site, initial_trace, is_factor, observed_twice, varying

if TYPE_CHECKING:
    from numpyro_onestep.target.base import Target

# Dimensions that results have of their own.
_RESERVED = ("chain", "draw", "sample")


@dataclasses.dataclass(frozen=True)
class Description:
    """What results say about a model's sites.

    Attributes:
        dims: names of the leading dimensions of each site inside plates; event dimensions are left
            for ArviZ to name.
        coords: `0 .. size - 1` for each of these dimensions that comes from a plate.
        observed_data: values of the observed sites.
    """

    dims: dict[str, list[str]]
    coords: dict[str, np.ndarray]
    observed_data: dict[str, np.ndarray]


def describe(target: Target) -> Description:
    """Trace the model once more and read off the names."""
    dims: dict[str, list[str]] = {}
    coords: dict[str, np.ndarray] = {}
    for name, site in initial_trace(target).items():
        if site["type"] == "deterministic" or (site["type"] == "sample" and not is_factor(site)):
            names, sizes = _site_dims(name, site)
            if sizes:
                dims[name] = names
                coords.update({dim: np.arange(size) for dim, size in sizes.items()})
    observed = {}
    for name, values in observed_twice(target).items():
        unknown = varying(values)
        if not unknown.any():
            observed[name] = values[0]
        elif not unknown.all():
            observed[name] = np.where(unknown, np.nan, values[0])
    return Description(dims, coords, observed)


def _site_dims(name: str, site: Site) -> tuple[list[str], dict[str, int]]:
    """Names of a site's leading dimensions, and the sizes of those that are plates."""
    shape = np.shape(site["value"])
    event_ndim = len(site["fn"].event_shape) if site["type"] == "sample" else 0
    by_axis: dict[int, str] = {}
    sizes: dict[str, int] = {}
    for frame in site["cond_indep_stack"]:
        axis = len(shape) - event_ndim + frame.dim
        if 0 <= axis < len(shape) and shape[axis] == frame.size:
            plate = f"{frame.name}_plate" if frame.name in _RESERVED else frame.name
            by_axis[axis] = plate
            sizes[plate] = frame.size
    if not by_axis:
        return [], {}
    return [by_axis.get(axis, f"{name}_dim_{axis}") for axis in range(max(by_axis) + 1)], sizes
