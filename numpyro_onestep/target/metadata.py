"""Names for ArviZ: dimensions and coordinates from a model's plates."""

from __future__ import annotations

import numpy as np

from numpyro_onestep.target.traces import Site, Trace, is_factor

# Dimensions that results have of their own.
_RESERVED = ("chain", "draw", "sample")


def plate_dims(trace: Trace) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """Names of the leading dimensions of each site inside plates, and the sizes of the plates.

    Event dimensions are left for ArviZ to name; a batch dimension outside all plates that precedes
    one inside gets the name that ArviZ would give it.
    """
    dims: dict[str, tuple[str, ...]] = {}
    sizes: dict[str, int] = {}
    for name, site in trace.items():
        if site["type"] == "deterministic" or (site["type"] == "sample" and not is_factor(site)):
            by_axis = _plates_by_axis(site)
            if by_axis:
                leading = range(max(by_axis) + 1)
                dims[name] = tuple(by_axis.get(axis, f"{name}_dim_{axis}") for axis in leading)
                shape = np.shape(site["value"])
                sizes.update({plate: shape[axis] for axis, plate in by_axis.items()})
    return dims, sizes


def _plates_by_axis(site: Site) -> dict[int, str]:
    shape = np.shape(site["value"])
    event_ndim = len(site["fn"].event_shape) if site["type"] == "sample" else 0
    by_axis: dict[int, str] = {}
    for frame in site["cond_indep_stack"]:
        axis = len(shape) - event_ndim + frame.dim
        # Deterministic sites may have any shape: only the dimensions that fit are the plate's.
        if 0 <= axis < len(shape) and shape[axis] == frame.size:
            by_axis[axis] = f"{frame.name}_plate" if frame.name in _RESERVED else frame.name
    return by_axis
