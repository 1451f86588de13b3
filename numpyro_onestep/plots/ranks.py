"""Ranks of simulated truths: their distribution functions against that of uniform numbers."""

import math

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from numpyro_onestep.diagnostics import Band, uniformity_band
from numpyro_onestep.inference_data import scalar_labels
from numpyro_onestep.plots.colours import ALARM, FILL, MARK
from numpyro_onestep.plots.shown import ShownFigure

_NUM_COLUMNS = 5


def plot_ranks(
    ranks: xr.Dataset,
    table: pd.DataFrame,
    heading: str,
    *,
    prob: float = 0.95,
    max_scalars: int = 40,
) -> Figure:
    """Empirical distribution functions of ranks less that of uniform ones, one panel per scalar.

    The bands are simultaneous over all points of all panels: where every rank is uniform, all
    curves stay inside with probability `prob` at least. A curve that leaves its band is drawn in
    the colour of an alarm. Above zero on the left and below on the right (S) the posterior is too
    narrow, the other way round too wide; a curve on one side of zero tells of a shift.

    Args:
        ranks: fractional ranks in [0, 1], dims (simulation, ...); NaN ones are left out.
        table: one row per scalar of `ranks`, in their order, with the column `p_value`.
        heading: above the panels.
        prob: probability of all bands together.
        max_scalars: largest number of panels; those of the smallest p-values are shown.

    Returns:
        A figure outside of pyplot: `figure.savefig(path)`, or the last line of a notebook cell.

    Raises:
        ValueError: for `prob` outside (0, 1), `max_scalars` below 1, or fewer than two ranks.

    Example:
        >>> simulation_based_calibration(inference, rng_key, x, y=y).plot()
    """
    if not 0.0 < prob < 1.0:
        raise ValueError(f"expected a probability in (0, 1); got {prob}")
    if max_scalars < 1:
        raise ValueError(f"expected max_scalars >= 1; got {max_scalars}")
    if not table["p_value"].notna().any():
        raise ValueError("expected at least two ranks of a scalar; got fewer")
    curves = {
        label: column
        for array in ranks.data_vars.values()
        for label, column in zip(
            scalar_labels(array, skip=("simulation",)),
            array.to_numpy().reshape(len(array), math.prod(array.shape[1:])).T,
            strict=True,
        )
    }
    tested = table["p_value"].dropna()
    kept = set(tested.nsmallest(max_scalars, keep="first").index)
    shown = [label for label in tested.index if label in kept]
    columns = min(len(shown), _NUM_COLUMNS)
    rows = -(-len(shown) // columns)
    size = (max(5.0, 2.4 * columns), 2.0 * rows + 0.9)
    figure = ShownFigure(figsize=size, layout="constrained")
    note = f"{heading} · band: {100 * prob:g} % for all panels together"
    if len(shown) < len(tested):
        note += f" · {len(shown)} of {len(tested)} scalars"
    figure.suptitle(note, fontsize=10)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for index, (axes, label) in enumerate(zip(panels, shown, strict=False)):
        # Numbers below the lowest panel of each column, which need not be in the last row.
        axes.tick_params(labelbottom=index + columns >= len(shown))
        values = np.sort(curves[label][np.isfinite(curves[label])])
        band = uniformity_band(values.size, 1.0 - (1.0 - prob) / len(tested))
        _draw(axes, values, band, f"{label}  p = {tested[label]:.2g}")
    figure.supxlabel("fractional rank of the truth", fontsize=9)
    figure.supylabel("ECDF less uniform", fontsize=9)
    return figure


def _draw(axes: Axes, values: np.ndarray, band: Band, title: str) -> None:
    points = np.concatenate([[0.0], band.points, [1.0]])
    found = np.searchsorted(values, points, side="right") / values.size
    lower = np.concatenate([[0.0], band.lower, [1.0]])
    upper = np.concatenate([[0.0], band.upper, [1.0]])
    outside = bool(np.any((found < lower) | (found > upper)))
    colour = ALARM if outside else MARK
    axes.fill_between(
        points, lower - points, upper - points, color=FILL, alpha=0.6, linewidth=0, label="band"
    )
    axes.plot(points, found - points, color=colour, linewidth=1.4, label="ranks")
    axes.axhline(0.0, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xlim(0.0, 1.0)
    axes.set_title(title, fontsize=9, color=colour)
    axes.tick_params(labelsize=8)
    axes.spines[["right", "top"]].set_visible(False)
