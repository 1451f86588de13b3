"""One picture of a result: the posterior of every scalar, the weights, and the verdict."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from numpyro_onestep.inference_data import group_dataset, list_attr, scalar_labels
from numpyro_onestep.plots.colours import FILL, MARK, verdict_colour
from numpyro_onestep.plots.headline import headline
from numpyro_onestep.plots.shown import ShownFigure
from numpyro_onestep.plots.weights import draw_weights

_SHOWN_TAIL = 0.005  # histograms leave out this share of the draws on each side
_MAX_REASONS = 3
_MAX_LABEL = 24


@dataclass(frozen=True)
class _Scalar:
    label: str
    draws: np.ndarray  # finite draws, (n,)
    num_missing: int


def plot_posterior_and_weights(
    result: Any,
    var_names: Sequence[str] | None = None,
    *,
    prob: float = 0.9,
    max_scalars: int = 60,
) -> Figure:
    """Histograms of all scalars of the posterior above the tail of the importance weights.

    Each scalar shows its mean (line) and central `prob` interval (bar), both also in numbers. The
    lower panel shows the weights from the largest down, over their mean, against the share of
    draws at least as large; the Pareto fit behind k-hat lies over the tail. Effective sample size
    and k-hat are in its title; verdict, evidence and, unless reliable, the reasons are on top.

    Scalars that never change are left out. Beyond `max_scalars`, sites with few scalars are shown
    before those with many. Both omissions are said in the picture.

    Args:
        result: what `OneStepInference.run` returns, or the same read from a netCDF file.
        var_names: sites to show; all if missing.
        prob: probability of the interval.
        max_scalars: largest number of panels.

    Returns:
        A figure outside of pyplot: `figure.savefig(path)`, or the last line of a notebook cell.

    Raises:
        ValueError: for unknown variables, `prob` outside (0, 1), `max_scalars` below 1, or a
            result without posterior or importance group.

    Example:
        >>> plot_posterior_and_weights(result, ["mu", "tau"]).savefig("posterior.png")
    """
    if not 0.0 < prob < 1.0:
        raise ValueError(f"expected a probability in (0, 1); got {prob}")
    if max_scalars < 1:
        raise ValueError(f"expected max_scalars >= 1; got {max_scalars}")
    scalars, notes = _choose(group_dataset(result, "posterior"), var_names, max_scalars)
    weights = group_dataset(result, "importance")
    stats = group_dataset(result, "sample_stats")

    columns = _num_columns(len(scalars))
    rows = -(-len(scalars) // columns)
    row_height = 1.9 if rows <= 2 else 1.45
    note = " · ".join([f"line: mean, bar: central {100 * prob:g} % interval", *notes])
    width = max(8.0, min(1.95 * columns, 15.0))
    reasons = _reasons(result, int(14 * width))
    heights = [0.17 * len(reasons) + 0.01, *[row_height] * rows, 3.4]
    figure = ShownFigure(figsize=(width, sum(heights) + 0.6), layout="constrained")
    colour = verdict_colour(result.attrs.get("verdict"))
    figure.suptitle(headline(result, stats), fontsize=13, fontweight="bold", color=colour)
    grid = figure.add_gridspec(rows + 2, columns, height_ratios=heights)
    if reasons:
        text = figure.add_subplot(grid[0, :])
        text.set_axis_off()
        text.text(0.0, 0.0, "\n".join(reasons), fontsize=8.5, va="bottom", transform=text.transAxes)
    for index, scalar in enumerate(scalars):
        row, column = divmod(index, columns)
        _draw_scalar(figure.add_subplot(grid[row + 1, column]), scalar, prob)
    tail_matters = result.attrs.get("verdict") != "reliable"
    draw_weights(figure.add_subplot(grid[rows + 1, :]), weights, stats, alarm=tail_matters)
    figure.supxlabel(note, fontsize=8, color="0.3")
    return figure


def _choose(
    posterior: xr.Dataset, var_names: Sequence[str] | None, limit: int
) -> tuple[list[_Scalar], list[str]]:
    """The scalars to show, in the order of the sites, and sentences on what is left out."""
    known = [str(name) for name in posterior.data_vars]
    unknown = [name for name in var_names or [] if name not in known]
    if unknown:
        raise ValueError(f"expected variables out of {known}; got {unknown}")
    names = list(var_names or known)
    arrays = {name: posterior[name].transpose("chain", "draw", ...) for name in names}
    varying: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        flat = array.to_numpy().reshape(array.shape[0] * array.shape[1], -1)
        varying[name] = np.flatnonzero(np.any(flat != flat[:1], axis=0))
    num_constant = sum(int(np.prod(a.shape[2:])) for a in arrays.values()) - sum(
        kept.size for kept in varying.values()
    )
    total, room = sum(kept.size for kept in varying.values()), limit
    quota = {}
    for name in sorted(names, key=lambda name: varying[name].size):
        quota[name] = min(varying[name].size, room)
        room -= quota[name]
    scalars = []
    for name in names:
        if not quota[name]:
            continue
        labels = list(scalar_labels(arrays[name], skip=("chain", "draw")))
        flat = arrays[name].to_numpy().reshape(-1, len(labels))
        for column in varying[name][: quota[name]]:
            draws = flat[:, column]
            finite = draws[np.isfinite(draws)]
            scalars.append(_Scalar(labels[column], finite, draws.size - finite.size))
    notes = []
    if total > limit:
        notes.append(f"showing {limit} of {total} scalars")
    if num_constant:
        notes.append(f"{num_constant} constant scalars left out")
    return scalars, notes


def _num_columns(num_scalars: int) -> int:
    for limit, columns in ((4, max(num_scalars, 1)), (8, 4), (15, 5), (30, 6)):
        if num_scalars <= limit:
            return columns
    return 8


def _reasons(result: Any, width: int) -> list[str]:
    """Lines of at most `width` characters: the first reasons, unless the verdict is reliable."""
    if result.attrs.get("verdict") == "reliable":
        return []
    reasons = [str(reason) for reason in list_attr(result, "verdict_reasons")]
    shown = reasons[:_MAX_REASONS]
    if len(reasons) > _MAX_REASONS:
        shown.append(f"and {len(reasons) - _MAX_REASONS} more")
    return [
        line
        for reason in shown
        for line in textwrap.wrap(f"– {reason}", width, subsequent_indent="   ")
    ]


def _draw_scalar(axes: Axes, scalar: _Scalar, prob: float) -> None:
    label = scalar.label
    if len(label) > _MAX_LABEL:
        label = f"{label[: _MAX_LABEL - 8]}…{label[-7:]}"
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(labelsize=7)
    axes.set_title(label, fontsize=9, pad=12)
    draws = scalar.draws
    if draws.size == 0:
        axes.text(0.5, 0.5, "no finite draw", ha="center", transform=axes.transAxes, fontsize=8)
        axes.set_xticks([])
        return
    values = draws.astype(np.float64)
    density, edges = np.histogram(values, _bins(draws), density=True)
    axes.stairs(density, edges, fill=True, color=FILL)
    low, high = np.quantile(values, [(1 - prob) / 2, (1 + prob) / 2])
    mean = float(values.mean())
    axes.axvline(mean, color=MARK, linewidth=1.2, label="mean")
    # Just above the axis line, in axes units, so that it never hides behind a tall bin.
    bar = axes.get_xaxis_transform()
    axes.plot([low, high], [0.03, 0.03], transform=bar, color=MARK, linewidth=3, label="interval")
    show = _number_format(high - low)
    text = f"{show(mean)}  [{show(low)}, {show(high)}]"
    if scalar.num_missing:
        text += f"  {scalar.num_missing} not finite"
    axes.annotate(
        text, (0.5, 1.0), (0, 2), "axes fraction", textcoords="offset points", ha="center",
        va="bottom", fontsize=7, color="0.3",
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=draws.dtype.kind in "bui"))


def _number_format(scale: float) -> Callable[[float], str]:
    """Three significant digits of `scale`: a mean of 1e-5 beside a width of 1 reads 0.00."""
    if not 1e-4 < scale < 1e6:
        return "{:.3g}".format
    decimals = max(0, 2 - int(np.floor(np.log10(scale))))
    return f"{{:z.{decimals}f}}".format  # z: no "-0.00"


def _bins(draws: np.ndarray) -> np.ndarray:
    """Bin edges: one bin per value for few integers, else 40 over all but the extreme tails."""
    if draws.dtype.kind in "bui":
        low, high = int(draws.min()), int(draws.max())
        if high - low <= 40:
            return np.arange(low, high + 2) - 0.5
    values = draws.astype(np.float64)
    for tail in (_SHOWN_TAIL, 0.0):  # nearly all draws may share one value
        left, right = np.quantile(values, [tail, 1 - tail])
        if right > left:
            return np.linspace(left, right, 41)
    return np.array([left - 0.5, left + 0.5])
