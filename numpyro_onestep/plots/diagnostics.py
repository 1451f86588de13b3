"""What the verdict looks at: the weights, points moved along the posterior, and more steps."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from numpyro_onestep.diagnostics.rules.base import percent
from numpyro_onestep.importance import ess, evidence, scaled_weights
from numpyro_onestep.inference_data import group_dataset
from numpyro_onestep.plots.colours import ALARM, FILL, MARK, verdict_colour
from numpyro_onestep.plots.headline import headline
from numpyro_onestep.plots.shown import ShownFigure
from numpyro_onestep.plots.weights import draw_weights

# Nats from the mean weight where the axis of the log-weights ends, at least and at most: rounding
# errors are not spread over a panel, and one point far away does not press the others into a bin.
# Neither does this share of the lowest ones, which count for nothing.
_LEAST, _MOST, _LOWEST = 0.1, 15.0, 0.002
_NUM_BINS = 48


def plot_diagnostics(result: Any) -> Figure:
    """The weights, the coverage of moved points, and the evidence in more steps, in one figure.

    * Top: the weights from the largest down, with the Pareto distribution behind k-hat.
    * Left: log-weights of the draws and of points that a Markov chain has moved along the posterior
      from them. The mean of the draws is the lower bound of the evidence (ELBO), that of the moved
      points the upper one (EUBO). Where the sampler covers the posterior, moved points follow the
      dark line, which is that of the draws by weight; those beyond the largest weight of a draw are
      in the colour of an alarm: the draws miss the place where they are. The first bin holds all
      lower weights as well, the last one all that are more than 15 nats above the mean weight.
    * Right: log evidence, with two standard errors, and effective draws in the steps of the run and
      in twice as many, and by the bridge to NUTS where that took over. They must agree.

    Args:
        result: what `OneStepInference.run` returns, or the same read from a netCDF file.

    Returns:
        A figure outside of pyplot: `figure.savefig(path)`, or the last line of a notebook cell.

    Raises:
        ValueError: for a result without these groups and statistics.

    Example:
        >>> plot_diagnostics(inference.inference_data).savefig("diagnostics.png")
    """
    weights, stats = group_dataset(result, "importance"), group_dataset(result, "sample_stats")
    missing = {"few_step_log_evidence", "few_step_ess_fraction"} - set(stats.data_vars)
    if missing:
        raise ValueError(f"expected the statistics {sorted(missing)}; got none of them")
    figure = ShownFigure(figsize=(9.5, 7.2), layout="constrained")
    colour = verdict_colour(result.attrs.get("verdict"))
    figure.suptitle(headline(result, stats), fontsize=13, fontweight="bold", color=colour)
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 2), height_ratios=(5, 4))
    tail_matters = result.attrs.get("verdict") != "reliable"
    draw_weights(figure.add_subplot(grid[0, :]), weights, stats, alarm=tail_matters)
    _draw_coverage(figure.add_subplot(grid[1, 0]), weights, stats)
    _draw_steps(figure.add_subplot(grid[1, 1]), result, weights, stats)
    return figure


def _draw_coverage(axes: Axes, weights: xr.Dataset, stats: xr.Dataset) -> None:
    """Shares of the draws, of the draws by weight, and of the moved points, by log-weight."""
    axes.spines[["right", "top"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_title("coverage: no moved points", fontsize=10)
    log_w = weights["log_weight"].to_numpy()
    weight, _ = scaled_weights(log_w, weights["sign"].to_numpy())
    if "moved_log_weight" not in weights or not weight.sum() > 0.0:
        axes.set_axis_off()
        return
    log_mean = float(np.logaddexp.reduce(log_w[np.isfinite(log_w)])) - np.log(log_w.size)
    moved = weights["moved_log_weight"].to_numpy() - log_mean
    num_moved, unknown = moved.size, np.mean(np.isnan(moved) | (moved == -np.inf))
    moved = moved[moved > -np.inf]
    draws = log_w - log_mean
    known = np.isfinite(draws)
    draws, weight = draws[known], weight[known] / weight.sum()
    edges = _edges(draws, moved)

    def shares(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return np.histogram(np.clip(values, edges[0], edges[-1]), edges, weights=weight)[0]

    elbo, eubo = (f" ({name.upper()} {float(stats[name]):.3f})" if np.isfinite(stats[name]) else ""
                  for name in ("elbo", "eubo"))  # fmt: skip
    each, largest = np.full(moved.size, 1.0 / num_moved), float(draws.max())
    beyond = moved > largest
    axes.stairs(
        shares(draws, np.full(draws.size, 1.0 / log_w.size)), edges, fill=True, color=FILL,
        label=f"draws{elbo}",
    )  # fmt: skip
    axes.stairs(shares(draws, weight), edges, color=MARK, linewidth=1.4, label="draws, by weight")
    axes.stairs(
        shares(moved, each), edges, color="black", linewidth=1.4, linestyle=(0, (2, 1)),
        label=f"moved points{eubo}",
    )  # fmt: skip
    if beyond.any():
        axes.stairs(
            shares(moved[beyond], each[beyond]), edges, fill=True, color=ALARM,
            label="moved, beyond all draws",
        )  # fmt: skip
    axes.axvline(largest, color=ALARM, linewidth=0.8, linestyle=":", label="largest of the draws")
    axes.set_yscale("log")
    axes.set_ylim(0.5 / max(num_moved, log_w.size), None)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("log weight less that of the mean weight, nats", fontsize=9)
    axes.set_ylabel("share", fontsize=9)
    expected = float(weight.max())
    title = (
        f"coverage: {percent(beyond.sum() / num_moved)} of {num_moved} moved points beyond all"
        f" draws ({percent(expected)} expected)"
    )
    if unknown > 0.0:
        title += f",\n{percent(unknown)} of unknown weight"
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7.5, loc="best")


def _edges(draws: np.ndarray, moved: np.ndarray) -> np.ndarray:
    low = min(float(np.quantile(v, _LOWEST, method="lower")) for v in (draws, moved) if v.size)
    high = max(float(v.max()) for v in (draws, moved) if v.size)
    low, high = min(max(low, -_MOST), -_LEAST), max(min(high, _MOST), _LEAST)
    # Room for the line at the largest weight.
    return np.linspace(low, high + 0.05 * (high - low), _NUM_BINS + 1)


def _draw_steps(axes: Axes, result: Any, weights: xr.Dataset, stats: xr.Dataset) -> None:
    """Evidences in rows: the steps of the run, twice as many, and NUTS."""
    log_w, sign = weights["log_weight"].to_numpy(), weights["sign"].to_numpy()
    stated = float(stats["log_evidence"]), float(stats["log_evidence_se"])
    k, few_k = float(stats["pareto_k"]), float(stats["few_step_pareto_k"])
    few = float(stats["few_step_log_evidence"]), float(stats["few_step_log_evidence_se"])
    num_steps = int(result.attrs["num_steps"])
    rescued = result.attrs.get("fallback") == "nuts"
    own = stated
    if rescued and np.isfinite(stated[0]):
        found = evidence(log_w, sign, pareto_k=k)
        own = found.log_evidence, found.se
    rows = [
        (_steps(num_steps), *own, _worth(ess(log_w, sign).fraction, k)),
        (_steps(2 * num_steps), *few, _worth(float(stats["few_step_ess_fraction"]), few_k)),
    ]
    if rescued:
        rows.append(("NUTS", *stated, "by a bridge to the draws"))
    change = few[0] - own[0]
    axes.set_title(
        f"log evidence in twice the steps: {change:+.3f}"
        if np.isfinite(change)
        else "log evidence: not available",
        fontsize=10,
    )
    for row, (_, value, error, worth) in enumerate(rows):
        if np.isfinite(value) and np.isfinite(error):
            axes.errorbar(value, row, xerr=2.0 * error, fmt="o", color=MARK, capsize=3)
        axes.annotate(
            worth, (0.0, row), (4, 9), ("axes fraction", "data"), textcoords="offset points",
            fontsize=8, color="0.3",
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.6, -0.6)
    axes.margins(x=0.15)
    axes.set_xlabel("log evidence ± 2 se", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.spines[["right", "top"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _steps(num: int) -> str:
    return f"{num} step" if num == 1 else f"{num} steps"


def _worth(share: float, k: float) -> str:
    return f"{percent(share)} effective, k-hat {k:.2f}"
