"""The text of `print_summary`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from numpyro_onestep.inference_data import group_dataset, list_attr, summary

_WIDTH = 88


def format_summary(
    result: Any, *, prob: float = 0.9, var_names: Sequence[str] | None = None
) -> str:
    """Table of the posterior (`var_names` of it), evidence, weights, verdict and its reasons."""
    stats = group_dataset(result, "sample_stats")
    training = group_dataset(result, "training")
    num_draws = group_dataset(result, "importance").sizes["importance_draw"]
    ess = float(stats["ess_importance"])
    table = summary(result, var_names, prob=prob)
    whole = dict.fromkeys(("ess_bulk", "ess_tail"), "{:.0f}".format)
    text = table.to_string(float_format=lambda value: f"{value:.2f}", formatters=whole)
    log_evidence, se = float(stats["log_evidence"]), float(stats["log_evidence_se"])
    shown = f"{log_evidence:.3f} +- {se:.2g}" if np.isfinite(log_evidence) else "not available"
    rescued = result.attrs.get("fallback") == "nuts"
    lines = [
        text,
        "",
        *(["posterior draws       by NUTS; the weights are those of the one-step draws"] * rescued),
        f"log evidence          {shown}",
        f"lower, upper bound    {_bounds(stats)}",
        f"effective draws       {ess:.0f} of {num_draws} ({ess / num_draws:.0%})",
        f"Pareto k-hat          {float(stats['pareto_k']):.2f}",
        f"chain acceptance      {float(stats['acceptance_rate'].mean()):.2f}",
        f"gradient evaluations  {int(training['num_target_gradients']):,}",
        f"seconds               {float(training['seconds_total']):.1f}",
        f"verdict               {result.attrs['verdict']}",
    ]
    notes = [*list_attr(result, "verdict_reasons"), result.attrs.get("evidence_note", "")]
    # The note on the evidence is among the reasons where a verdict was given.
    for note in dict.fromkeys(notes):
        if note:
            lines.append(
                textwrap.fill(str(note), _WIDTH, initial_indent="  - ", subsequent_indent="    ")
            )
    return "\n".join(lines)


def _bounds(stats: Any) -> str:
    """ELBO and EUBO of the log evidence: from the draws, and from points moved by MCMC."""
    lower, upper = float(stats["elbo"]), float(stats["eubo"])
    if not np.isfinite(lower) or not np.isfinite(upper):
        return "not available"
    return f"{lower:.3f}, {upper:.3f} (gap {upper - lower:.2g})"
