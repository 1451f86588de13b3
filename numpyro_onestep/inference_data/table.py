"""Tables of the posterior, one row per scalar: of the chains, and of the weighted draws."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from numpyro_onestep.importance import weighted_mean, weighted_quantile, weighted_sd

from .arviz_lines import convergence, group_dataset
from .dims import IMPORTANCE_DIM, safe_name


def summary(
    result: Any, var_names: Sequence[str] | None = None, *, prob: float = 0.9
) -> pd.DataFrame:
    """Mean, sd, median, central `prob` interval, bulk and tail ESS and r-hat of every scalar.

    The same numbers, row labels (`theta[Choate]`) and columns on both ArviZ lines, whose own
    `summary` differ in interval kind, width, rounding and column names. The interval columns are
    named by their percentages, as in NumPyro: "5.0%", "95.0%".

    Raises:
        ValueError: for an unknown variable or a `prob` outside (0, 1).
    """
    if not 0.0 < prob < 1.0:
        raise ValueError(f"expected a probability in (0, 1); got {prob}")
    posterior = group_dataset(result, "posterior")
    known = [str(name) for name in posterior.data_vars]
    chosen = [safe_name(name) for name in var_names or known]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"expected variables out of {known}; got {unknown}")
    # ESS and r-hat want numbers: bool sites become 0 and 1.
    numbers = posterior[chosen].astype(np.float64)
    diagnostics = convergence(numbers)
    levels = ((1 - prob) / 2, (1 + prob) / 2)
    columns = ["mean", "sd", "median", *(f"{100 * level:.1f}%" for level in levels)]
    rows, labels = [], []
    for name in numbers.data_vars:
        values = numbers[name].transpose("chain", "draw", ...)
        flat = values.to_numpy().reshape(values.shape[0] * values.shape[1], -1)
        low, middle, high = np.quantile(flat, [levels[0], 0.5, levels[1]], axis=0)
        block = [flat.mean(0), flat.std(0, ddof=min(1, flat.shape[0] - 1)), middle, low, high]
        block += [table[name].to_numpy().reshape(-1) for table in diagnostics.values()]
        rows.append(np.stack(block, axis=1))
        labels += list(scalar_labels(values, skip=("chain", "draw")))
    data = np.concatenate(rows) if rows else np.zeros((0, len(columns) + len(diagnostics)))
    return pd.DataFrame(data, index=labels, columns=[*columns, *diagnostics])


def weighted_summary(
    result: Any,
    var_names: Sequence[str] | None = None,
    *,
    prob: float = 0.9,
    log_ratio: ArrayLike = 0.0,
) -> pd.DataFrame:
    """Mean, sd, median and central `prob` interval of every scalar from the raw weighted draws.

    Nothing is resampled: the numbers are those of the weights themselves, folds included, each
    followed by its Monte Carlo standard error (columns `mcse`, repeated after each number).

    Args:
        result: of a run, with its group `importance`.
        var_names: sites; all of the posterior group by default.
        prob: probability of the interval, whose columns are named by their percentages.
        log_ratio: what each log-weight gains, `(n,)`, for another posterior.

    Raises:
        ValueError: for an unknown variable or a `prob` outside (0, 1).
    """
    if not 0.0 < prob < 1.0:
        raise ValueError(f"expected a probability in (0, 1); got {prob}")
    group = group_dataset(result, "importance")
    known = [str(name) for name in group_dataset(result, "posterior").data_vars]
    unknown = [name for name in var_names or [] if name not in known]
    if unknown:
        raise ValueError(f"expected variables out of {known}; got {unknown}")
    weights = group["log_weight"].to_numpy() + np.asarray(log_ratio), group["sign"].to_numpy()
    levels = ((1 - prob) / 2, (1 + prob) / 2)
    columns = ["mean", "sd", "median", *(f"{100 * level:.1f}%" for level in levels)]
    rows, labels = [], []
    for name in var_names or known:
        stored = f"{name}_draw" if f"{name}_draw" in group else name
        array = group[stored].astype(np.float64).transpose(IMPORTANCE_DIM, ...)
        values = array.to_numpy().reshape(array.shape[0], -1)
        found = [weighted_mean(values, *weights), weighted_sd(values, *weights)]
        found += [weighted_quantile(values, p, *weights) for p in (0.5, *levels)]
        rows.append(np.stack([part for e in found for part in (e.value, e.mcse)], axis=1))
        labels += [
            label.replace(stored, name, 1) for label in scalar_labels(array, skip=(IMPORTANCE_DIM,))
        ]
    headings = [heading for column in columns for heading in (column, "mcse")]
    return pd.DataFrame(np.concatenate(rows), index=labels, columns=headings)


def scalar_labels(array: xr.DataArray, skip: Sequence[str] = ()) -> Iterator[str]:
    """Labels of the scalars of an array in C order, as ArviZ writes them: `theta[Choate, 0]`."""
    axes = [
        array[dim].to_numpy() if dim in array.coords else np.arange(array.sizes[dim])
        for dim in array.dims
        if dim not in skip
    ]
    for labels in product(*axes):
        yield f"{array.name}[{', '.join(map(str, labels))}]" if labels else str(array.name)
