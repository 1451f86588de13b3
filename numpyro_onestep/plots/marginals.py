"""Marginal posteriors from several sources, one over the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from numpyro_onestep.importance import check_known, scaled_weights, weighted_quantile
from numpyro_onestep.inference_data import group_dataset, is_result, scalar_labels
from numpyro_onestep.plots.shown import ShownFigure

_NUM_COLUMNS = 5
_NUM_BINS = 40
_SHOWN_TAIL = 0.005  # of each source, on each side
# From dark to light, apart for every kind of eye (Okabe and Ito 2008).
_COLOURS = ("#08306b", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


@dataclass(frozen=True)
class _Source:
    """Draws of one source: values `(n, k)` and labels `(k,)` by site, weights `(n,)`, sum 1."""

    values: dict[str, np.ndarray]
    labels: dict[str, list[str]]
    weight: np.ndarray


def plot_marginals(
    sources: Mapping[str, Any], var_names: Sequence[str] | None = None, *, max_scalars: int = 30
) -> Figure:
    """Histograms of every scalar from several samplers: one step, few steps, NUTS.

    The number in a panel's title is the largest distance between the distribution functions of the
    first source and of any other, `max |dF|` in [0, 1]. For `n` independent draws each it is about
    `1.4 / sqrt(n)` at most where the distributions are the same. Sites that a source lacks and
    scalars that never change are left out.

    Args:
        sources: by name, results of `OneStepInference.run` or of ArviZ (their group `posterior`);
            what `OneStepInference.sample` returns; dictionaries of draws `(n, *event)` by site, as
            from `MCMC.get_samples`; or pairs of such a dictionary and log-weights `(n,)`, as from
            `get_weighted_samples`.
        var_names: sites to show; all that the sources have in common if missing.
        max_scalars: largest number of panels; those of the largest distances are shown.

    Returns:
        A figure outside of pyplot: `figure.savefig(path)`, or the last line of a notebook cell.

    Raises:
        ValueError: naming the source, for one of another kind, unknown sites, sites of different
            sizes, or no site in common; for fewer than two or more than six sources.

    Example:
        >>> few_steps = inference.sample(rng_key, 4000, num_steps=4)
        >>> plot_marginals({"one step": result, "4 steps": few_steps, "NUTS": mcmc.get_samples()})
    """
    if not 2 <= len(sources) <= len(_COLOURS):
        raise ValueError(f"expected 2 to {len(_COLOURS)} sources; got {len(sources)}")
    if max_scalars < 1:
        raise ValueError(f"expected max_scalars >= 1; got {max_scalars}")
    read = {str(name): _read(str(name), source) for name, source in sources.items()}
    scalars = _scalars(read, var_names)
    kept = sorted(scalars, key=lambda label: -scalars[label][1])[:max_scalars]
    shown = [label for label in scalars if label in set(kept)]
    columns = min(len(shown), _NUM_COLUMNS)
    rows = -(-len(shown) // columns)
    size = (max(5.5, 2.4 * columns), 1.9 * rows + 0.8)
    figure = ShownFigure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, label in zip(panels, shown, strict=False):
        draws, distance = scalars[label]
        _draw(axes, draws, f"{label}  max |dF| {distance:.3f}")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    if len(shown) < len(scalars):
        figure.supxlabel(f"showing {len(shown)} of {len(scalars)} scalars", fontsize=8)
    return figure


def _read(name: str, source: Any) -> _Source:
    """The draws of one source, whatever it is."""
    labels: dict[str, list[str]] = {}
    sign = None
    if is_result(source):
        posterior = group_dataset(source, "posterior")
        sites: dict[str, Any] = {}
        for site, array in posterior.data_vars.items():
            array = array.transpose("chain", "draw", ...)
            labels[str(site)] = list(scalar_labels(array, skip=("chain", "draw")))
            sites[str(site)] = array.to_numpy().reshape(-1, *array.shape[2:])
        log_weight = None
    elif isinstance(source, tuple) and len(source) == 2:
        sites, log_weight = source
    elif isinstance(source, Mapping):
        sites, log_weight = dict(source), None
    elif hasattr(source, "samples") and hasattr(source, "log_weights"):
        sites, log_weight, sign = source.samples, source.log_weights, source.sign
    else:
        raise ValueError(
            f"expected {name!r} as a result, draws by site, or draws and log-weights; got"
            f" {type(source).__name__}"
        )
    arrays = {str(site).replace("/", "."): np.asarray(value) for site, value in sites.items()}
    sizes = {value.shape[0] if value.ndim else 0 for value in arrays.values()}
    num = sizes.pop() if len(sizes) == 1 else 0
    if not num or (log_weight is not None and np.shape(log_weight) != (num,)):
        raise ValueError(
            f"expected draws of {name!r} with one number of them, and as many weights; got shapes"
            f" { {site: value.shape for site, value in arrays.items()} }"
        )
    if log_weight is not None:
        check_known(np.asarray(log_weight, np.float64))
    weight = np.ones(num) if log_weight is None else scaled_weights(log_weight, sign)[0]
    if not weight.sum() > 0.0:
        raise ValueError(f"expected draws of {name!r} with positive weights; got none")
    for site, value in arrays.items():
        if site not in labels:
            labels[site] = list(scalar_labels(xr.DataArray(value[0], name=site)))
    columns = {site: value.reshape(num, -1) for site, value in arrays.items()}
    return _Source(columns, labels, weight / weight.sum())


_Draws = dict[str, tuple[np.ndarray, np.ndarray]]


def _scalars(
    read: dict[str, _Source], var_names: Sequence[str] | None
) -> dict[str, tuple[_Draws, float]]:
    """Values and weights by source and the distance of the first to the others, by scalar."""
    first = next(iter(read.values()))
    common = [site for site in first.values if all(site in s.values for s in read.values())]
    wanted = [name.replace("/", ".") for name in var_names or common]
    if not wanted or set(wanted) - set(common):
        raise ValueError(f"expected sites that all sources have, out of {common}; got {wanted}")
    found = {}
    for site in wanted:
        sizes = {name: source.values[site].shape[1] for name, source in read.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"expected site {site!r} of one size in all sources; got {sizes}")
        for column, label in enumerate(first.labels[site]):
            draws = {
                name: (source.values[site][:, column].astype(np.float64), source.weight)
                for name, source in read.items()
            }
            if any(np.ptp(values[np.isfinite(values)]) > 0.0 for values, _ in draws.values()):
                found[label] = (draws, _distance(draws))
    if not found:
        raise ValueError(f"expected a scalar that varies among {wanted}; got only constants")
    return found


def _distance(draws: _Draws) -> float:
    """Largest distance of distribution functions between the first source and any other."""
    functions = []
    grid = np.sort(np.concatenate([values for values, _ in draws.values()]))
    for values, weight in draws.values():
        order = np.argsort(values)
        cumulative = np.concatenate([[0.0], np.cumsum(weight[order])])
        functions.append(cumulative[np.searchsorted(values[order], grid, side="right")])
    return max(float(np.abs(function - functions[0]).max()) for function in functions[1:])


def _draw(axes: Axes, draws: _Draws, title: str) -> None:
    ends = [
        float(weighted_quantile(values, p, np.log(np.maximum(weight, 1e-300))).value)
        for values, weight in draws.values()
        for p in (_SHOWN_TAIL, 1.0 - _SHOWN_TAIL)
    ]
    low, high = min(ends), max(ends)
    edges = np.linspace(low, high if high > low else low + 1.0, _NUM_BINS + 1)
    for (name, (values, weight)), colour in zip(draws.items(), _COLOURS, strict=False):
        share, _ = np.histogram(values, edges, weights=weight)
        axes.stairs(share / np.diff(edges), edges, color=colour, linewidth=1.3, label=name)
    axes.set_title(title, fontsize=9)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
