"""How training went: effective draws and evidence by round, gradients by step."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from numpyro_onestep.inference_data import group_dataset
from numpyro_onestep.plots.colours import ALARM, FILL, MARK
from numpyro_onestep.plots.shown import ShownFigure

# Rounds further below the final evidence than this many nats would hide the others.
_SHOWN_NATS = 20.0


def plot_training(result: Any) -> Figure:
    """Share of effective draws, log evidence and size of the gradient, over the training.

    The first two are those of the draws before each round, which training has not seen; a dashed
    line marks the final draws' value, a band the evidence's two standard errors. Evidences more
    than 20 nats below the final one are left out, and counted in the panel's title. A training
    that has converged is flat at the right end of all three panels.

    Args:
        result: what `OneStepInference.run` returns, or the same read from a netCDF file.

    Returns:
        A figure outside of pyplot: `figure.savefig(path)`, or the last line of a notebook cell.

    Raises:
        ValueError: for a result without a group `training` that holds these records.

    Example:
        >>> plot_training(inference.inference_data).savefig("training.png")
    """
    training = group_dataset(result, "training")
    missing = {"ess_fraction", "round_log_evidence", "gradient_norm"} - set(training.data_vars)
    if missing:
        raise ValueError(f"expected training records {sorted(missing)}; got none of them")
    stats = group_dataset(result, "sample_stats")
    num_draws = group_dataset(result, "importance").sizes["importance_draw"]
    figure = ShownFigure(figsize=(11.0, 3.2), layout="constrained")
    shares, evidences, gradients = figure.subplots(1, 3)
    _draw_shares(shares, training, float(stats["ess_importance"]) / num_draws)
    _draw_evidences(evidences, training, stats)
    _draw_gradients(gradients, training)
    for axes in (shares, evidences, gradients):
        axes.spines[["right", "top"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.title.set_fontsize(10)
    for axes in (shares, evidences):
        axes.set_xlabel("round", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _draw_shares(axes: Axes, training: xr.Dataset, final: float) -> None:
    share = training["ess_fraction"].to_numpy()
    axes.plot(np.arange(1, share.size + 1), share, "o-", color=MARK, markersize=4, label="rounds")
    axes.axhline(final, color=ALARM, linewidth=1.0, linestyle="--", label="final")
    axes.set_ylim(0.0, 1.02)
    axes.set_title(f"effective draws: {final:.1%} in the end")


def _draw_evidences(axes: Axes, training: xr.Dataset, stats: xr.Dataset) -> None:
    found = training["round_log_evidence"].to_numpy()
    rounds = np.arange(1, found.size + 1)
    final, se = float(stats["log_evidence"]), float(stats["log_evidence_se"])
    top = final if np.isfinite(final) else np.max(found, initial=-np.inf, where=np.isfinite(found))
    shown = np.isfinite(found) & (found > top - _SHOWN_NATS)
    axes.plot(rounds[shown], found[shown], "o-", color=MARK, markersize=4, label="rounds")
    title = "log evidence"
    if np.isfinite(final):
        axes.axhline(final, color=ALARM, linewidth=1.0, linestyle="--", label="final")
        axes.axhspan(final - 2 * se, final + 2 * se, color=FILL, alpha=0.5, linewidth=0)
        title += f": {final:.3f} ± {se:.2g} in the end"
    else:
        title += ": not available in the end"
    if not shown.all():
        title += f", {np.sum(~shown)} far below"
    axes.set_title(title)
    axes.set_xlim(0.5, found.size + 0.5)


def _draw_gradients(axes: Axes, training: xr.Dataset) -> None:
    norm = training["gradient_norm"].to_numpy()
    usable = np.isfinite(norm) & (norm > 0)
    steps = np.arange(1, norm.size + 1)
    axes.semilogy(steps[usable], norm[usable], ",", color=FILL, label="steps")
    window = max(1, norm.size // 40)
    if usable.any():
        # The median of neighbours: single steps are noise.
        blocks = [norm[i : i + window] for i in range(0, norm.size, window)]
        middle = [np.median(b[np.isfinite(b)]) if np.isfinite(b).any() else np.nan for b in blocks]
        centre = [i + min(window, norm.size - i) / 2 for i in range(0, norm.size, window)]
        axes.semilogy(centre, middle, "-", color=MARK, linewidth=1.5, label="median")
    axes.set_xlabel("optimiser step", fontsize=9)
    # A refit whose old sampler serves as it is.
    axes.set_title("norm of the gradient" if norm.size else "no training")
