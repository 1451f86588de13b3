"""The verdict: one word, with its reasons in sentences."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .checks import Checks
from .rules import RULES, Rule

Label = Literal["reliable", "usable_with_weights", "rescued", "unreliable"]
LABELS: tuple[Label, ...] = get_args(Label)
"""The words of a verdict, the best first."""

_ORDER = ("unreliable", "usable_with_weights", "note")


@dataclass(frozen=True)
class Verdict:
    """Whether a run can be believed.

    Attributes:
        label: `reliable`: posterior draws and evidence may be used as they are.
            `usable_with_weights`: the weighted draws may be used within what the reasons say.
            `rescued`: the weighted draws are unreliable; posterior draws and evidence come from
            NUTS and may be used as such draws are, see `rescue`.
            `unreliable`: neither.
        reasons: sentences with the numbers behind the label and what to do, gravest first, notes
            last. A reliable run says here what it passed.
    """

    label: Label
    reasons: tuple[str, ...]


def judge(checks: Checks, rules: tuple[Rule, ...] = RULES) -> Verdict:
    """Apply every rule; the gravest that applies decides, and only none at all is reliable."""
    fired: dict[str, Rule] = {}
    for rule in rules:
        if rule.name not in fired and rule.applies(checks):
            fired[rule.name] = rule
    reasons = [
        rule.sentence(checks)
        for severity in _ORDER
        for rule in fired.values()
        if rule.severity == severity
    ]
    severities = {rule.severity for rule in fired.values()}
    if "unreliable" in severities:
        return Verdict("unreliable", tuple(reasons))
    if "usable_with_weights" in severities:
        return Verdict("usable_with_weights", tuple(reasons))
    return Verdict("reliable", (_passed(checks), *reasons))


def _passed(checks: Checks) -> str:
    parts = [
        f"The {checks.num_draws} draws are worth {checks.ess_count:.0f} independent ones,"
        f" Pareto k-hat is {checks.pareto_k:.2f}"
    ]
    # Without an evidence the mean weight is still a number that all must name.
    refused = checks.evidence_status == "refused"
    few = checks.few_step
    if few is not None and checks.few_step_testifies:
        difference = abs(few.log_evidence - checks.one_step.log_evidence)
        what = "mean weight" if refused else "log evidence"
        parts.append(f"one and several steps agree about the {what} to {difference:.2g}")
    moved = checks.coverage
    if moved is not None:
        where = f"{moved.num_moved} points moved along the posterior stay where the draws are"
        if math.isfinite(moved.gap) and not refused:
            where += f" (log evidence between {moved.elbo:.3f} and {moved.eubo:.3f})"
        parts.append(where)
    return f"{', '.join(parts[:-1])}, and {parts[-1]}." if len(parts) > 1 else f"{parts[0]}."
