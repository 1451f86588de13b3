"""More steps per draw where fewer do not suffice."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from numpyro_onestep.diagnostics import LABELS, Checks
from numpyro_onestep.diagnostics.rules.base import percent
from numpyro_onestep.inference.run import Run

# The check by twice as many steps must promise so much more, as it draws few; and attempts.
_LEAST_GAIN = 1.5
_MAX_DOUBLINGS = 4


def finish_in_enough_steps(
    finish: Callable[[int], Run], num_steps: int, deadline: float
) -> tuple[Run, int]:
    """The finished run with `num_steps` per draw, or with more of them, and their number.

    Every run is checked by draws in twice as many steps. Where the verdict is not `reliable` and a
    larger share of those is effective, the number is doubled for as long as that share does grow,
    and the verdict gets no graver.
    Ctrl-C and the deadline (of `time.perf_counter`) leave it where it is.
    """
    first = best = finish(num_steps)
    wanted = num_steps
    for _ in range(_MAX_DOUBLINGS):
        if best.verdict.label == "reliable" or not _promises_more(best.checks):
            break
        if time.perf_counter() > deadline:
            break
        try:
            other = finish(2 * wanted)
        except KeyboardInterrupt:
            break
        if not _is_better(other, best):
            break
        best, wanted = other, 2 * wanted
    if wanted == num_steps:
        return best, wanted
    said = (
        f"A draw takes {wanted} steps of the sampler: in {num_steps},"
        f" {percent(first.checks.ess_fraction)} of the draws were effective, now"
        f" {percent(best.checks.ess_fraction)}."
    )
    verdict = dataclasses.replace(best.verdict, reasons=(*best.verdict.reasons, said))
    return dataclasses.replace(best, verdict=verdict), wanted


def _is_better(one: Run, other: Run) -> bool:
    no_graver = LABELS.index(one.verdict.label) <= LABELS.index(other.verdict.label)
    return no_graver and one.checks.ess_fraction > other.checks.ess_fraction


def _promises_more(checks: Checks) -> bool:
    share = checks.few_step_ess_fraction
    return share is not None and share > _LEAST_GAIN * checks.ess_fraction
