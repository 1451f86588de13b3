"""Several models side by side: log Bayes factors and probabilities, with their errors."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from numpyro_onestep.plots.colours import FILL, MARK, verdict_colour
from numpyro_onestep.plots.shown import ShownFigure

# Beyond this many nats a linear axis would press the close models into one point.
_MAX_LINEAR = 60.0
_LINEAR_CORE = 10.0


def plot_evidence(table: pd.DataFrame) -> Figure:
    """Log Bayes factors against the best model, and model probabilities, one row per model.

    Bars around the points are two standard errors. Names are coloured by verdict. Where the models
    are far apart, the axis of the log Bayes factors is linear near zero and logarithmic beyond.

    Args:
        table: one row per model with the columns `log_evidence`, `se`, `log_bayes_factor`,
            `log_bayes_factor_se`, `prior`, `probability`, `probability_se` and `verdict`, as in
            the table of `compare_evidence`.

    Returns:
        A figure outside of pyplot: `figure.savefig(path)`, or the last line of a notebook cell.

    Example:
        >>> compare_evidence({"pooled": pooled, "hierarchical": hierarchical}).plot()
    """
    figure = ShownFigure(figsize=(9.0, 1.3 + 0.5 * len(table)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = np.arange(len(table))
    _draw_factors(left, table, rows)
    _draw_probabilities(right, table, rows)
    left.set_yticks(rows, [str(name) for name in table.index])
    for label, verdict in zip(left.get_yticklabels(), table["verdict"], strict=True):
        label.set_color(verdict_colour(verdict))
    left.set_ylim(len(table) - 0.4, -0.6)  # the best on top
    for axes in (left, right):
        axes.spines[["right", "top"]].set_visible(False)
        axes.tick_params(axis="x", labelsize=8)
    return figure


def _draw_factors(axes: Axes, table: pd.DataFrame, rows: np.ndarray) -> None:
    factors = table["log_bayes_factor"].to_numpy(float)
    errors = 2.0 * table["log_bayes_factor_se"].to_numpy(float)
    axes.errorbar(factors, rows, xerr=errors, fmt="o", color=MARK, capsize=3, label="models")
    axes.axvline(0.0, color="0.6", linewidth=0.8, linestyle=":")
    if np.ptp(factors) > _MAX_LINEAR:
        axes.set_xscale("symlog", linthresh=_LINEAR_CORE)
        axes.set_xlim(3.0 * factors.min(), 0.3 * _LINEAR_CORE)
    else:
        axes.margins(x=0.12)
    axes.set_xlabel("log Bayes factor against the best, ± 2 se", fontsize=9)
    best = table.iloc[0]
    name = textwrap.shorten(str(table.index[0]), 40, placeholder="…")
    title = f"{name}: log evidence {best['log_evidence']:.3f} ± {best['se']:.2g}"
    axes.set_title(title, fontsize=9, loc="left")


def _draw_probabilities(axes: Axes, table: pd.DataFrame, rows: np.ndarray) -> None:
    probability = table["probability"].to_numpy(float)
    errors = 2.0 * table["probability_se"].to_numpy(float)
    bounds = np.stack([probability - np.maximum(probability - errors, 0.0),
                       np.minimum(probability + errors, 1.0) - probability])  # fmt: skip
    axes.barh(rows, probability, height=0.55, color=FILL, label="probability")
    axes.errorbar(probability, rows, xerr=bounds, fmt="none", color=MARK, capsize=3)
    prior = table["prior"].to_numpy(float)
    axes.plot(prior, rows, "|", color="0.4", markersize=16, label="prior")
    for row, value in zip(rows, probability, strict=True):
        axes.annotate(
            f"{value:.3f}" if value >= 0.0005 or value == 0 else f"{value:.1e}",
            (1.0, row), (4, 0), textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel("probability ± 2 se (grey: prior)", fontsize=9)
