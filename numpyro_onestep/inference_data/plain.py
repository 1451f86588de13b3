"""Results as nested dictionaries of arrays and back, for files of any format."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .arviz_lines import group_dataset, group_names, wrap_groups

Plain = dict[str, Any]


def to_plain(result: Any) -> Plain:
    """A result as dictionaries: attributes, and by group its variables and coordinates.

    Raises:
        ValueError: for a variable or coordinate of Python objects other than text.
    """
    groups = {}
    for name in group_names(result):
        dataset = group_dataset(result, name)
        groups[name] = {
            "attrs": dict(dataset.attrs),
            "coords": _to_arrays(name, dataset.coords),
            "variables": _to_arrays(name, dataset.data_vars),
        }
    return {"attrs": dict(result.attrs), "groups": groups}


def from_plain(plain: Plain) -> Any:
    """Inverse of `to_plain`, in the container of the installed ArviZ line."""
    groups = {
        name: xr.Dataset(
            {k: tuple(v) for k, v in group["variables"].items()},
            coords={k: tuple(v) for k, v in group["coords"].items()},
            attrs=group["attrs"],
        )
        for name, group in plain["groups"].items()
    }
    return wrap_groups(groups, plain["attrs"])


def _to_arrays(group: str, arrays: Mapping[Any, xr.DataArray]) -> Plain:
    return {
        str(name): (tuple(map(str, array.dims)), _to_array(group, name, array), dict(array.attrs))
        for name, array in arrays.items()
    }


def _to_array(group: str, name: Any, array: xr.DataArray) -> np.ndarray:
    values = array.to_numpy()
    if values.dtype != object:
        return values
    if not all(isinstance(value, str) for value in values.flat):
        raise ValueError(f"expected numbers or text in {name!r} of group {group!r}; got objects")
    return values.astype(str)
