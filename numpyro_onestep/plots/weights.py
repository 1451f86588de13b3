"""The importance weights as a panel: from the largest down, with the Pareto fit behind k-hat."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from numpyro_onestep.importance import ess, finite_share, folded_fraction, pareto_k_threshold
from numpyro_onestep.plots.colours import ALARM, FILL, MARK, VERDICT_COLOURS

# Share of the weights, the lowest ones, that do not decide where the axis ends.
_LOWEST = 0.002


def draw_weights(axes: Axes, weights: xr.Dataset, stats: xr.Dataset, *, alarm: bool) -> None:
    """Weights over their mean against the share of draws at least as large, both logarithmic.

    `alarm` allows a red title: a reliable run may have a large k-hat of a tail that holds nothing.
    """
    log_w = weights["log_weight"].to_numpy().astype(np.float64)
    num = log_w.size
    sign = weights["sign"].to_numpy() if "sign" in weights else np.ones(num)
    size = ess(log_w, sign)
    k = float(stats["pareto_k"]) if "pareto_k" in stats else float("nan")
    limit = pareto_k_threshold(num)
    title = (
        f"importance weights: ESS {size.count:.0f} of {num} ({100 * size.fraction:.0f} %), "
        f"Pareto k-hat {k:.2f} (limit {limit:.2f})"
    )
    if (unknown := 1 - finite_share(log_w)) > 0:
        title += f", {100 * unknown:.2g} % not finite"
    if (folded := folded_fraction(sign)) > 0:
        title += f", {100 * folded:.2g} % folded"
    bad = unknown > 0 or (alarm and not k < limit)
    axes.set_title(title, fontsize=10, color=VERDICT_COLOURS["unreliable"] if bad else "black")
    axes.spines[["right", "top"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("share of draws with at least this weight", fontsize=9)
    axes.set_ylabel("weight / mean weight", fontsize=9)

    ranked = np.sort(log_w[np.isfinite(log_w)])[::-1]
    if ranked.size == 0:
        axes.text(0.5, 0.5, "no positive finite weight", ha="center", transform=axes.transAxes)
        return
    share = np.arange(1, ranked.size + 1) / num
    log_mean = np.logaddexp.reduce(ranked) - np.log(num)
    # One point per rank in the tail, fewer where ranks crowd on the logarithmic axis.
    shown = np.unique(np.geomspace(1, ranked.size, 600).astype(int)) - 1
    # The lowest weights count for nothing, and one alone would set the scale: they end at a third
    # of what all but a few of them reach, and at e^-12 of the mean.
    reached = ranked[int((1.0 - _LOWEST) * (ranked.size - 1))] - log_mean
    floor = max(-12.0, reached - np.log(3.0))
    heights = np.exp(np.maximum(ranked - log_mean, floor))
    axes.loglog(share[shown], heights[shown], ".", color=FILL, markeredgecolor=MARK,
                markeredgewidth=0.3, markersize=6, label="weights")  # fmt: skip
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    # Between the decades only where there are few of them, and then two: more would overlap.
    if np.ptp(np.log10(heights)) < 1.5:
        axes.yaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        )
    axes.tick_params(which="minor", labelsize=7)
    num_tail = int(min(ranked.size / 5, 3 * np.sqrt(ranked.size)))
    smoothed = weights["psis_log_weight"].to_numpy() if "psis_log_weight" in weights else log_w
    smoothed = np.sort(smoothed[np.isfinite(smoothed)])[::-1]
    if np.isfinite(k) and 5 <= num_tail <= smoothed.size:
        # Both normalised to mean one, so the fit is seen against the raw weights it replaces.
        fit = np.exp(smoothed[:num_tail] + np.log(num))
        label = f"Pareto fit of the largest {num_tail} (k-hat {k:.2f})"
        axes.plot(share[:num_tail], fit, color=ALARM, linewidth=1.8, label=label)
    axes.axhline(1.0, color="0.6", linewidth=0.8, linestyle=":", label="equal weights")
    axes.legend(fontsize=8, frameon=False, loc="lower left")
