"""The result of a run, group by group, in the container of the installed ArviZ line."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from .arviz_lines import arviz_version, wrap_groups
from .dims import IMPORTANCE_DIM, MOVED_DIM, SAMPLE_DIMS, AxisNames, argument_names, make_dataset

Arrays = Mapping[str, Any]
INFERENCE_LIBRARY = "numpyro_onestep"
_MOVED = "moved_log_weight"


def build(
    *,
    posterior: Arrays,
    sample_stats: Arrays,
    importance: Arrays,
    importance_weights: Arrays,
    training: Arrays,
    moved_log_weight: Any = (),
    names: AxisNames | None = None,
    attrs: Mapping[str, Any] | None = None,
    log_likelihood: Arrays | None = None,
    posterior_predictive: Arrays | None = None,
    prior: Arrays | None = None,
    prior_predictive: Arrays | None = None,
    observed_data: Arrays | None = None,
    constant_data: Arrays | None = None,
) -> Any:
    """Build the result: `InferenceData` on ArviZ 0.23, `xarray.DataTree` on 1.x.

    All groups are dicts of name -> array (NumPy or JAX).

    Args:
        posterior: (chain, draw, *event), constrained sites and deterministics.
        sample_stats: (chain, draw) arrays `lp`, `log_q`, `acceptance_rate`; scalars
            `log_evidence`, `log_evidence_se`, `pareto_k`, `ess_importance`, `missed_share`, the
            lower and upper bound of the evidence in nats, `elbo` and `eubo`, and `few_step_*`, the
            evidence, k-hat and share of effective draws in twice the steps; stored as float64.
        importance: (S, *event), the raw i.i.d. draws of the constrained sites.
        importance_weights: (S,) arrays `log_weight`, `psis_log_weight`, `log_det`, `sign`. A site
            that bears one of these names is stored as `<name>_draw`.
        training: scalars, arrays, or (dims, array) pairs such as
            `("training_step", losses)`.
        moved_log_weight: (N,), log-weights of the points that the draws were moved to along the
            posterior, NaN where unknown; stored in the group `importance`.
        names: axis names of the sites, from :func:`merge_names`.
        attrs: root attributes, see :func:`plain_attrs`; `inference_library` and `arviz_version`
            are added.
        log_likelihood: (chain, draw, *batch), observed sites. Factor sites are left out: those
            whose "observation" has no elements.
        posterior_predictive: (chain, draw, *event).
        prior: (chain, draw, *event).
        prior_predictive: (chain, draw, *event).
        observed_data: arrays without sample axes.
        constant_data: arrays without sample axes.

    Raises:
        ValueError: "expected ...; got ..." naming the site, if shapes, dims and coords disagree.
    """
    names = names or AxisNames()
    observed = {k: np.asarray(v) for k, v in (observed_data or {}).items()}
    factors = {site for site, value in observed.items() if value.size == 0}
    likelihood = {k: v for k, v in (log_likelihood or {}).items() if k not in factors}
    observed = {k: v for k, v in observed.items() if k not in factors}

    groups = {"posterior": make_dataset(posterior, SAMPLE_DIMS, names)}
    optional = {"posterior_predictive": posterior_predictive, "log_likelihood": likelihood}
    for group, arrays in optional.items():
        if arrays:
            cut = group == "log_likelihood"
            groups[group] = make_dataset(arrays, SAMPLE_DIMS, names, cut=cut)
    groups["sample_stats"] = _sample_stats(sample_stats, groups["posterior"].sizes)
    for group, arrays in {"prior": prior, "prior_predictive": prior_predictive}.items():
        if arrays:
            groups[group] = make_dataset(arrays, SAMPLE_DIMS, names)
    if observed:
        groups["observed_data"] = make_dataset(observed, (), names)
    if constant_data:
        sites = {k: np.shape(v)[len(SAMPLE_DIMS) :] for k, v in posterior.items()}
        sites |= {k: v.shape for k, v in observed.items()}
        given = {k: np.shape(v) for k, v in constant_data.items()}
        own = argument_names(given, sites, names)
        groups["constant_data"] = make_dataset(constant_data, (), own)
    groups["importance"] = _importance(importance, importance_weights, moved_log_weight, names)
    groups["training"] = _training(training)
    root = plain_attrs(
        {
            "inference_library": INFERENCE_LIBRARY,
            "arviz_version": arviz_version(),
            **(attrs or {}),
        }
    )
    groups["posterior"].attrs["inference_library"] = INFERENCE_LIBRARY
    return wrap_groups(groups, root)


def _sample_stats(stats: Arrays, sizes: Mapping[Any, int]) -> xr.Dataset:
    scalars, arrays = {}, {}
    expected = tuple(sizes[dim] for dim in SAMPLE_DIMS)
    for name, value in stats.items():
        array = np.asarray(value)
        if array.ndim == 0:
            scalars[name] = array.astype(np.float64)
        elif array.shape == expected:
            arrays[name] = array
        else:
            raise ValueError(
                f"expected sample statistic {name!r} as a scalar or of shape {expected}; "
                f"got {array.shape}"
            )
    return make_dataset(arrays, SAMPLE_DIMS, AxisNames()).assign(scalars)


def _importance(draws: Arrays, weights: Arrays, moved: Any, names: AxisNames) -> xr.Dataset:
    taken = {*weights, _MOVED}
    safe = {f"{name}_draw" if name in taken else name: value for name, value in draws.items()}
    dims = {f"{k}_draw" if k in taken else k: v for k, v in names.dims.items()}
    for name, value in weights.items():
        if np.ndim(value) != 1:
            raise ValueError(
                f"expected one {name!r} per importance draw, shape (S,); got {np.shape(value)}"
            )
    axis = AxisNames(dims, names.coords)
    dataset = make_dataset({**safe, **weights}, (IMPORTANCE_DIM,), axis)
    # An axis without elements would be an unlimited one in a netCDF file.
    return dataset.assign({_MOVED: (MOVED_DIM, np.asarray(moved))}) if np.size(moved) else dataset


def _training(training: Arrays) -> xr.Dataset:
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, value in training.items():
        if isinstance(value, tuple) and len(value) == 2 and _is_dims(value[0]):
            dims = (value[0],) if isinstance(value[0], str) else tuple(value[0])
            array = np.asarray(value[1])
        else:
            array = np.asarray(value)
            dims = tuple(f"{name}_dim_{axis}" for axis in range(array.ndim))
        if len(dims) != array.ndim:
            raise ValueError(
                f"expected {array.ndim} dims for training record {name!r}; got {list(dims)}"
            )
        variables[name] = (dims, array)
    return xr.Dataset(variables)


def _is_dims(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def plain_attrs(attrs: Mapping[str, Any]) -> dict[str, str | float | list[Any]]:
    """Attributes as str, float, or list of one of them: all that netCDF files hold.

    bool becomes "true" or "false", None "", a number a float, a mapping its JSON text. Mixed lists
    become lists of str. Read lists back with :func:`list_attr`: a netCDF file cannot tell a list
    of one from its element.
    """
    return {name: _plain(value) for name, value in attrs.items()}


def _plain(value: Any) -> str | float | list[Any]:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return json.dumps(value, default=str, sort_keys=True)
    if np.ndim(value) == 0 and not isinstance(value, Iterable):
        try:
            return float(value)
        except (TypeError, ValueError):
            return str(value)
    items = [_plain(item) for item in (value.tolist() if hasattr(value, "tolist") else value)]
    return items if all(isinstance(item, float) for item in items) else [str(i) for i in items]


def list_attr(result: Any, name: str) -> list[Any]:
    """A list attribute of a result, fresh or read from a netCDF file; [] if it is missing."""
    value = result.attrs.get(name, [])
    if isinstance(value, str):
        return [value] if value else []
    return np.atleast_1d(np.asarray(value)).tolist()
