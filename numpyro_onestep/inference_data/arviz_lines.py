"""The two ArviZ lines behind one face: everything that differs between 0.23 and 1.x is here.

| | 0.23 (Python 3.11) | 1.x (Python >= 3.12) |
|---|---|---|
| container | `arviz.InferenceData` | `xarray.DataTree` |
| PSIS | `arviz.psislw(log_w)` | `arviz_stats.base.array_stats.psislw(-log_w)`: negated input |
| PSIS tail | ceil(min(S/5, 3 sqrt S)) draws | floor(3 sqrt S), floor(S/5) up to S = 225 |

Both lines offer `ess`, `rhat`, `loo` and netCDF files under the same names.
"""

import os
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

with warnings.catch_warnings():
    # 0.23 announces 1.x on every import; that is no news to the user of this package.
    warnings.simplefilter("ignore", FutureWarning)
    import arviz as az

IS_LEGACY = int(az.__version__.split(".")[0]) < 1
if not IS_LEGACY:
    from arviz_stats.base import array_stats

_MIN_PSIS_DRAWS = 25  # five draws in the tail


def psis(log_weight: ArrayLike) -> tuple[np.ndarray, float]:
    """Pareto-smoothed log-weights (S,), normalised to sum to one, and k-hat.

    Equal on both ArviZ lines. Only positive weights take part: a weight of zero (-inf) stays
    zero and does not dilute the tail, and an unknown one (NaN, +inf) is returned as -inf, so that
    it can never be drawn (`importance.finite_share` counts it). k-hat describes |w|; pass -inf
    for folded draws where the smoothed weights are to be resampled.

    k-hat is 0 where the largest weights are all equal (there is no tail) and inf with fewer than
    25 positive weights or a fit that fails (nobody can tell). Without any positive weight all
    smoothed log-weights are -inf.

    Source: Vehtari, Simpson, Gelman, Yao, Gabry (2024), "Pareto smoothed importance sampling".

    Raises:
        ValueError: if `log_weight` is not one-dimensional or is empty.
    """
    log_w = np.asarray(log_weight, dtype=np.float64)
    if log_w.ndim != 1 or log_w.size == 0:
        raise ValueError(f"expected log weights of shape (S,) with S >= 1; got {log_w.shape}")
    positive = np.isfinite(log_w)
    smoothed = np.full_like(log_w, -np.inf)
    if not positive.any():
        return smoothed, float("inf")
    values = log_w[positive] - log_w[positive].max()
    plain = values - np.log(np.sum(np.exp(values)))
    num_tail = _num_tail(values.size)
    tail = np.partition(values, -num_tail)[-num_tail:] if num_tail else values
    if values.size >= _MIN_PSIS_DRAWS and tail.min() == tail.max():
        smoothed[positive] = plain
        return smoothed, 0.0
    if values.size < _MIN_PSIS_DRAWS:
        smoothed[positive] = plain
        return smoothed, float("inf")
    result, pareto_k = _psislw(values, num_tail)
    # A fit that failed leaves NaN or weights far from the data: keep the raw ones.
    usable = np.isfinite(pareto_k) and bool(np.all(np.isfinite(result)))
    smoothed[positive] = result if usable else plain
    return smoothed, float(pareto_k) if usable else float("inf")


def _num_tail(num_draws: int) -> int:
    return int(3 * np.sqrt(num_draws)) if num_draws > 225 else num_draws // 5


def _psislw(log_w: np.ndarray, num_tail: int) -> tuple[np.ndarray, float]:
    with np.errstate(all="ignore"):
        if IS_LEGACY:
            # 0.23 takes ceil(3 sqrt(S / reff)) tail draws; this reff makes it the tail of 1.x.
            reff = log_w.size / ((num_tail - 0.5) / 3.0) ** 2
            result, pareto_k = az.psislw(log_w, reff=reff)
        else:
            result, pareto_k = array_stats.psislw(-log_w)
    return np.asarray(result), float(pareto_k)


def wrap_groups(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> Any:
    """Put datasets, in order, into the container of the installed line, with root attributes."""
    if IS_LEGACY:
        return az.InferenceData(attrs=dict(attrs), **groups)
    tree = xr.DataTree.from_dict({f"/{name}": dataset for name, dataset in groups.items()})
    tree.attrs = dict(attrs)
    return tree


def is_result(value: Any) -> bool:
    """Whether a value is the container of the installed line."""
    return isinstance(value, az.InferenceData if IS_LEGACY else xr.DataTree)


def inference_library(result: Any) -> str:
    """Name of the library that a result comes from, as it says itself; else ""."""
    found = result.attrs.get("inference_library", "")
    if not found and "posterior" in group_names(result):
        found = group_dataset(result, "posterior").attrs.get("inference_library", "")
    return str(found)


def group_names(result: Any) -> list[str]:
    """Names of the groups of a result of either line."""
    return list(result.groups()) if IS_LEGACY else list(result.children)


def group_dataset(result: Any, name: str) -> xr.Dataset:
    """One group of a result of either line as a dataset.

    Raises:
        ValueError: if there is no such group.
    """
    if name not in group_names(result):
        raise ValueError(f"expected a result with a group {name!r}; got {group_names(result)}")
    group = result[name]
    return group if isinstance(group, xr.Dataset) else group.to_dataset()


def convergence(dataset: xr.Dataset) -> dict[str, xr.Dataset]:
    """`ess_bulk`, `ess_tail` and `r_hat` of every scalar of a (chain, draw, ...) dataset."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # constant scalars: NaN, which the table shows
        return {
            "ess_bulk": az.ess(dataset, method="bulk"),
            "ess_tail": az.ess(dataset, method="tail"),
            "r_hat": az.rhat(dataset),
        }


class Convergence(NamedTuple):
    """The worst scalar of some chains.

    Attributes:
        r_hat: largest rank-normalised split r-hat (Vehtari et al. 2021).
        ess_bulk: smallest effective number of draws for means and medians.
        ess_tail: smallest one for 5 % and 95 % quantiles.
    """

    r_hat: float
    ess_bulk: float
    ess_tail: float


def worst_convergence(values: np.ndarray) -> Convergence:
    """Of all scalars in `(chain, draw, n)`; NaN for one that does not move."""
    found = convergence(xr.Dataset({"values": (("chain", "draw", "scalar"), values)}))
    worst = {name: table["values"].to_numpy() for name, table in found.items()}
    return Convergence(
        float(worst["r_hat"].max()), float(worst["ess_bulk"].min()), float(worst["ess_tail"].min())
    )


def mean_ess(values: np.ndarray) -> float:
    """Effective number of draws for the mean of `(chain, draw)` values."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return float(az.ess(np.asarray(values), method="mean"))


def arviz_version() -> str:
    """Version of the installed ArviZ."""
    return str(az.__version__)


def from_netcdf(path: str | os.PathLike[str]) -> Any:
    """Read a result written by `result.to_netcdf(path)`, on either line."""
    return az.from_netcdf(os.fspath(path))


def add_groups(result: Any, groups: Mapping[str, xr.Dataset]) -> None:
    """Put datasets into a result of either line, in place of groups of the same names."""
    for name, dataset in groups.items():
        if not IS_LEGACY:
            result[name] = xr.DataTree(dataset)
            continue
        if name in group_names(result):
            delattr(result, name)
        with warnings.catch_warnings():
            # 0.23 warns of groups whose names its schema lacks.
            warnings.simplefilter("ignore", UserWarning)
            result.add_groups({name: dataset})
