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
    larger share of those is effective, the number is doubled for as long as that share does grow.
    Ctrl-C and the deadline (of `time.perf_counter`) leave it where it is.
    """
    first = best = last = finish(num_steps)
    taken = tried = num_steps
    for _ in range(_MAX_DOUBLINGS):
        if last.verdict.label == "reliable" or not _promises_more(last.checks):
            break
        if time.perf_counter() > deadline:
            break
        try:
            other = finish(2 * tried)
        except KeyboardInterrupt:
            break
        if not other.checks.ess_fraction > last.checks.ess_fraction:
            break
        last, tried = other, 2 * tried
        if _replaces(last, first):
            best, taken = last, tried
    if taken == num_steps:
        return best, taken
    said = (
        f"A draw takes {taken} steps of the sampler: in {num_steps},"
        f" {percent(first.checks.ess_fraction)} of the draws were effective, now"
        f" {percent(best.checks.ess_fraction)}."
    )
    verdict = dataclasses.replace(best.verdict, reasons=(*best.verdict.reasons, said))
    return dataclasses.replace(best, verdict=verdict), taken


def _replaces(run: Run, first: Run) -> bool:
    """Whether a run in more steps takes the place of the first one: its verdict is no graver.

    For one that is `unreliable` only a `reliable` one: of several attempts one may pass weaker
    checks by luck, as draws that do not reach a part of the posterior show no large weight there.
    """
    label, before = run.verdict.label, first.verdict.label
    if before == "unreliable":
        return label == "reliable"
    return LABELS.index(label) <= LABELS.index(before)


def _promises_more(checks: Checks) -> bool:
    share = checks.few_step_ess_fraction
    return share is not None and share > _LEAST_GAIN * checks.ess_fraction
