"""The table of `print_summary`: one row per scalar of the posterior."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .arviz_lines import convergence, group_dataset


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
    unknown = [name for name in var_names or [] if name not in known]
    if unknown:
        raise ValueError(f"expected variables out of {known}; got {unknown}")
    # ESS and r-hat want numbers: bool sites become 0 and 1.
    numbers = posterior[list(var_names or known)].astype(np.float64)
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


def scalar_labels(array: xr.DataArray, skip: Sequence[str] = ()) -> Iterator[str]:
    """Labels of the scalars of an array in C order, as ArviZ writes them: `theta[Choate, 0]`."""
    axes = [
        array[dim].to_numpy() if dim in array.coords else np.arange(array.sizes[dim])
        for dim in array.dims
        if dim not in skip
    ]
    for labels in product(*axes):
        yield f"{array.name}[{', '.join(map(str, labels))}]" if labels else str(array.name)
