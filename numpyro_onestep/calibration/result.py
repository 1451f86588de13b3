"""Ranks of simulated truths, the test of their uniformity, and the picture of it."""

from __future__ import annotations

import dataclasses
import html
import math

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from numpyro_onestep.diagnostics import uniformity_p_value
from numpyro_onestep.inference_data import scalar_labels
from numpyro_onestep.plots import plot_ranks

_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Ranks of simulated truths among the draws of their posteriors; prints as a table.

    Fits with the verdict `unreliable` are kept in `ranks` and in `fits`; the test and the picture
    leave them out, and say how many they are. That does not make the others look better: given the
    data, the rank of a truth does not depend on the verdict.

    Attributes:
        ranks: fractional ranks in [0, 1] of every latent and deterministic site, and of the
            log-density `lp`, dims (simulation, ...); uniform where the inference is right. NaN
            where a fit failed.
        truths: the values that the data were simulated from, in the same shapes.
        fits: one row per simulation with the columns `verdict`, `log_evidence`,
            `log_evidence_se`, `pareto_k`, `ess_fraction`, `seconds` and `reasons`, those of the
            verdict or the error that ended the fit.
        num_simulations: how many were asked for; more than were made if it was interrupted.
    """

    ranks: xr.Dataset
    truths: xr.Dataset
    fits: pd.DataFrame
    num_simulations: int

    @property
    def believed(self) -> xr.Dataset:
        """The ranks of all fits that are not `unreliable`."""
        return self.ranks.isel(simulation=(self.fits["verdict"] != "unreliable").to_numpy())

    @property
    def table(self) -> pd.DataFrame:
        """One row per scalar, of the fits that are not `unreliable`.

        Columns: `p_value`, the probability that ranks of a right inference stray as far somewhere;
        `mean_rank`, 0.5 where it is right, larger where the draws are too small; `spread`, the
        standard deviation of the ranks over that of uniform ones, larger than 1 where the
        posterior is too narrow; `num_ranks`, how many there are.
        """
        rows, labels = [], []
        for array in self.believed.data_vars.values():
            scalars = array.to_numpy().reshape(len(array), math.prod(array.shape[1:])).T
            rows += [_row(ranks[np.isfinite(ranks)]) for ranks in scalars]
            labels += list(scalar_labels(array, skip=("simulation",)))
        columns = ["p_value", "mean_rank", "spread", "num_ranks"]
        return pd.DataFrame(rows, index=labels, columns=columns)

    @property
    def p_value(self) -> float:
        """The smallest p-value of any scalar times the number of scalars (Bonferroni), at most 1.

        NaN where there is nothing to test.
        """
        p = self.table["p_value"].dropna()
        return min(1.0, float(p.min()) * len(p)) if len(p) else math.nan

    def plot(self, *, prob: float = 0.95, max_scalars: int = 40) -> Figure:
        """Distribution functions of the ranks, less that of uniform ones, with bands.

        Args:
            prob: probability with which all curves of a right inference stay within their bands.
            max_scalars: largest number of panels; those of the smallest p-values are shown.

        Example:
            >>> calibration.plot().savefig("ranks.png")
        """
        return plot_ranks(
            self.believed, self.table, self._heading(), prob=prob, max_scalars=max_scalars
        )

    def __repr__(self) -> str:
        """Counts and the table of the scalars, the smallest p-values first."""
        return "\n".join([*self._lines(), self._formatted().to_string()])

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        lines = "<br>".join(html.escape(line) for line in self._lines())
        return f"<p>{lines}</p>{self._formatted().to_html()}"

    def _heading(self) -> str:
        made = len(self.fits)
        num_left_out = int((self.fits["verdict"] == "unreliable").sum())
        text = f"{made} simulations"
        if made < self.num_simulations:
            text += f" (interrupted; {self.num_simulations} asked for)"
        if num_left_out:
            text += f", {num_left_out} 'unreliable' fits left out"
        return text

    def _lines(self) -> list[str]:
        verdicts = self.fits["verdict"].value_counts()
        counts = ", ".join(f"{count} {name}" for name, count in verdicts.items())
        lines = [
            self._heading(),
            f"verdicts: {counts}",
            f"ranks uniform: p = {self.p_value:.2g} for all scalars together",
        ]
        if len(self.table) > _SHOWN:
            lines.append(f"{_SHOWN} of {len(self.table)} scalars, the smallest p-values first")
        return lines

    def _formatted(self) -> pd.DataFrame:
        table = self.table.sort_values("p_value", kind="stable").head(_SHOWN)
        styles = {"p_value": ".2g", "mean_rank": ".3f", "spread": ".3f"}
        for name, style in styles.items():
            table[name] = [format(value, style) for value in table[name]]
        return table


def _row(ranks: np.ndarray) -> tuple[float, float, float, int]:
    if ranks.size < 2:
        return math.nan, math.nan, math.nan, ranks.size
    spread = float(np.sqrt(np.mean((ranks - 0.5) ** 2) * 12.0))
    return uniformity_p_value(ranks), float(ranks.mean()), spread, ranks.size
