"""Names and coordinates of the axes of a result: from the plates, overridden by the user.

A site of event shape (8, 3) has two event axes. Their names come from the user's `dims`, else
from the plates, else ArviZ's default `<site>_dim_<axis>`; a short list or a None in it is filled
up with defaults. Coordinate values come from the user's `coords`, else from the plates, else 0, 1,
2, ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

SAMPLE_DIMS = ("chain", "draw")
IMPORTANCE_DIM = "importance_draw"
MOVED_DIM = "moved_point"

DimNames = Mapping[str, Sequence[str | None]]
Coords = Mapping[str, Any]


@dataclass(frozen=True)
class AxisNames:
    """Dims of sites and coordinates of dims, the user's already laid over those of the plates."""

    dims: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    coords: Mapping[str, np.ndarray] = field(default_factory=dict)


def merge_names(
    plate_dims: DimNames | None = None,
    plate_coords: Coords | None = None,
    user_dims: DimNames | None = None,
    user_coords: Coords | None = None,
) -> AxisNames:
    """Lay the user's names over the plates'.

    Raises:
        ValueError: if a dims entry is a bare string, or a coordinate is not one-dimensional.
    """
    dims: dict[str, Sequence[str | None]] = {}
    for source in (plate_dims, user_dims):
        for site, names in (source or {}).items():
            if isinstance(names, str):
                raise ValueError(f"expected dims[{site!r}] as a list of names; got {names!r}")
            dims[site] = list(names)
    coords: dict[str, np.ndarray] = {}
    for name, values in {**(plate_coords or {}), **(user_coords or {})}.items():
        array = np.asarray(values)
        if array.ndim != 1:
            raise ValueError(
                f"expected coords[{name!r}] as a list of labels; got shape {array.shape}"
            )
        coords[name] = array
    return AxisNames(dims, coords)


def argument_names(
    arguments: Mapping[str, Sequence[int]], sites: Mapping[str, Sequence[int]], names: AxisNames
) -> AxisNames:
    """The names as they are for arguments of the model.

    An argument that has the name of a site and another shape (the observations transposed, or
    without those that are missing) has not the axes of that site.

    Args:
        arguments: shape of every argument that is an array.
        sites: event shape of every site.
        names: of the axes of the sites, and of the user.
    """
    other = {k for k, v in arguments.items() if k in sites and tuple(v) != tuple(sites[k])}
    return AxisNames({k: v for k, v in names.dims.items() if k not in other}, names.coords)


def event_dims(site: str, shape: Sequence[int], names: AxisNames) -> tuple[str, ...]:
    """Dim names of one site's event axes of sizes `shape`, checked against the coordinates.

    Raises:
        ValueError: naming the site, for too many, reserved or repeated names, or coordinates
            of another length.
    """
    given = list(names.dims.get(site, ()))
    if len(given) > len(shape):
        raise ValueError(
            f"expected at most {len(shape)} dims for site {site!r} of event shape "
            f"{tuple(shape)}; got {given}"
        )
    given += [None] * (len(shape) - len(given))
    result = tuple(name or f"{site}_dim_{axis}" for axis, name in enumerate(given))
    reserved = [*SAMPLE_DIMS, IMPORTANCE_DIM, MOVED_DIM, site]
    if set(reserved).intersection(result):
        raise ValueError(
            f"expected dims of site {site!r} other than {reserved}; got {list(result)}"
        )
    if len(set(result)) < len(result):
        raise ValueError(f"expected different dims for site {site!r}; got {list(result)}")
    for name, size in zip(result, shape, strict=True):
        if name in names.coords and names.coords[name].size != size:
            raise ValueError(
                f"expected {size} labels in coords[{name!r}], an axis of site {site!r}; "
                f"got {names.coords[name].size}"
            )
    return result


def check_names(event_shapes: Mapping[str, Sequence[int]], names: AxisNames) -> None:
    """Check the names against the event shapes of all sites: cheap, so done before a long fit.

    Dims for unknown sites and coords of unused dims are fine, as in ArviZ: one dictionary may
    serve several models.

    Raises:
        ValueError: as :func:`event_dims`, or if one dim has two sizes or a site's name, or two
            names differ in "/" against "." alone.
    """
    safe_names = [safe_name(site) for site in event_shapes]
    if len(set(safe_names)) < len(safe_names):
        raise ValueError(f'expected names that differ after "/" -> "."; got {list(event_shapes)}')
    sizes: dict[str, tuple[str, int]] = {}
    for site, shape in event_shapes.items():
        for name, size in zip(event_dims(site, shape, names), shape, strict=True):
            if name in event_shapes:
                raise ValueError(
                    f"expected dims of site {site!r} other than a site's name; got {name!r}"
                )
            other, seen = sizes.setdefault(name, (site, size))
            if seen != size:
                raise ValueError(
                    f"expected dim {name!r} to have one size; got {seen} in site {other!r} and "
                    f"{size} in site {site!r}"
                )


def make_dataset(
    arrays: Mapping[str, Any],
    leading: Sequence[str],
    names: AxisNames,
    *,
    cut: bool = False,
) -> xr.Dataset:
    """A dataset of `arrays`, each of shape (*leading, *event), with coordinates on every axis.

    With `cut`, surplus dims on the right are dropped: the log-likelihood of a multivariate
    observation has lost the event axes of the observation. A "/" in a name (NumPyro's `scope`)
    becomes ".": neither DataTree nor netCDF files can hold it.

    Raises:
        ValueError: as :func:`check_names`, or if the arrays differ in their leading sizes.
    """
    values = {site: np.asarray(value) for site, value in arrays.items()}
    count = len(leading)
    for site, value in values.items():
        if value.ndim < count:
            raise ValueError(
                f"expected {site!r} to start with axes {list(leading)}; got shape {value.shape}"
            )
    shapes = {value.shape[:count] for value in values.values()}
    if len(shapes) > 1:
        raise ValueError(f"expected one size for axes {list(leading)}; got {sorted(shapes)}")
    if cut:
        dims = {s: d[: values[s].ndim - count] for s, d in names.dims.items() if s in values}
        names = AxisNames(dims, names.coords)
    check_names({site: value.shape[count:] for site, value in values.items()}, names)
    coords = {}
    variables = {}
    for site, value in values.items():
        axes = (*leading, *event_dims(site, value.shape[count:], names))
        safe_axes = tuple(map(safe_name, axes))
        variables[safe_name(site)] = (safe_axes, value)
        for axis, safe, size in zip(axes, safe_axes, value.shape, strict=True):
            coords[safe] = (safe, names.coords.get(axis, np.arange(size)))
    return xr.Dataset(variables, coords=coords)


def safe_name(name: str) -> str:
    """The name under which a result holds a site: neither line's files can hold a slash."""
    return name.replace("/", ".")
