"""What a rule is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..checks import Checks

Severity = Literal["note", "usable_with_weights", "unreliable"]

NOTE: Severity = "note"
USABLE: Severity = "usable_with_weights"
UNRELIABLE: Severity = "unreliable"

MORE_TIME = "Give the sampler more training time, reparametrise the model, or use NUTS."


@dataclass(frozen=True)
class Rule:
    """One row: where `applies`, the verdict is at best `severity`, for the reason in `sentence`.

    A note leaves the verdict as it is. `sentence` is asked only where the rule applies; it names
    the numbers, what they mean for the user and what to do.
    """

    name: str
    severity: Severity
    applies: Callable[[Checks], bool]
    sentence: Callable[[Checks], str]


def percent(share: float) -> str:
    """`share` in [0, 1] as a percentage with two digits, in words where it is next to nothing."""
    value = 100.0 * share
    if 0.0 < value < 1e-4:
        return "less than 0.0001 %"
    return f"{value:.0f} %" if value >= 99.5 else f"{value:.2g} %"
