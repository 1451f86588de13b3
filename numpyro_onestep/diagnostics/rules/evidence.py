"""Rules on the evidence: its error, and other estimates that must name the same number."""

import math
from collections.abc import Callable

from .. import limits
from ..checks import Checks
from .base import MORE_TIME, NOTE, UNRELIABLE, USABLE, Rule


def _missing(checks: Checks) -> bool:
    # Unknown weights make `log_evidence` NaN; they have a rule of their own.
    known = math.isfinite(checks.one_step.log_evidence_known)
    return checks.evidence_status != "refused" and not known


def _missing_sentence(checks: Checks) -> str:
    return (
        "The weights add up to no positive, finite evidence: they are all zero, or folded draws"
        f" outweigh the others. {MORE_TIME}"
    )


def _wide(limit: float) -> Callable[[Checks], bool]:
    def applies(checks: Checks) -> bool:
        # Without a value there is no error to judge, and another rule speaks.
        return math.isfinite(checks.one_step.log_evidence) and not checks.one_step.se <= limit

    return applies


def _wide_sentence(checks: Checks) -> str:
    missed = checks.missed_share or 0.0
    allowance = -math.log1p(-missed) if missed < 1.0 else math.inf
    if allowance >= 0.5 * checks.one_step.se:
        return (
            f"The log evidence has a standard error of {checks.one_step.se:.2g}, most of it for a"
            " part of the posterior that the draws do not reach. More draws do not make it smaller."
        )
    return (
        f"The log evidence has a standard error of {checks.one_step.se:.2g}. Take more draws until"
        f" it is {limits.MAX_RELIABLE_SE} at most."
    )


def _few_step_differs(nats: float) -> Callable[[Checks], bool]:
    def applies(checks: Checks) -> bool:
        few = checks.few_step
        if few is None or not checks.few_step_testifies:
            return False
        difference = abs(few.log_evidence - checks.one_step.log_evidence)
        joint_se = math.hypot(few.se, checks.one_step.se)
        return difference > max(limits.MAX_Z * joint_se, nats)

    return applies


def _few_step_sentence(checks: Checks) -> str:
    assert checks.few_step is not None
    one, few = checks.one_step, checks.few_step
    difference, joint_se = abs(one.log_evidence - few.log_evidence), math.hypot(one.se, few.se)
    return (
        f"One step puts the log evidence at {one.log_evidence:.3f}, several steps at"
        f" {few.log_evidence:.3f}: {difference:.2g} apart, with a joint standard error of"
        f" {joint_se:.2g}. Both should name the same number, and the lower one is likely to miss a"
        f" part of the posterior. {MORE_TIME}"
    )


def _few_step_silent(checks: Checks) -> str:
    k = math.nan if checks.few_step_pareto_k is None else checks.few_step_pareto_k
    return (
        "Several steps could neither confirm nor deny the evidence of one step: their own weights"
        f" do not suffice (Pareto k-hat {k:.2f})."
    )


def _halves_differ(limit: float) -> Callable[[Checks], bool]:
    return lambda checks: checks.halves_z is not None and not abs(checks.halves_z) <= limit


def _halves_sentence(checks: Checks) -> str:
    assert checks.halves_z is not None
    if math.isnan(checks.halves_z):
        return (
            "The two halves of the draws cannot be compared, because one of them gives no evidence."
            " Take more draws."
        )
    return (
        f"The two halves of the draws put the evidence {abs(checks.halves_z):.1f} standard errors"
        " apart, so that its error is understated. Take more draws."
    )


def _above_bracket(nats: float) -> Callable[[Checks], bool]:
    def applies(checks: Checks) -> bool:
        upper = checks.coverage
        if upper is None:
            return False
        joint_se = math.hypot(checks.one_step.se, upper.eubo_se)
        return checks.one_step.log_evidence - upper.eubo > max(limits.MAX_Z * joint_se, nats)

    return applies


def _above_bracket_sentence(checks: Checks) -> str:
    assert checks.coverage is not None
    return (
        f"The log evidence of {checks.one_step.log_evidence:.3f} exceeds its upper bound from"
        f" moved points of the posterior, {checks.coverage.eubo:.3f}: the posterior does not"
        f" confirm the largest weights, or the chains stayed in one part of it. {MORE_TIME}"
    )


def _below_bracket(checks: Checks) -> bool:
    lower = checks.coverage
    if lower is None:
        return False
    joint_se = math.hypot(checks.one_step.se, lower.elbo_se)
    difference = lower.elbo - checks.one_step.log_evidence
    return difference > max(limits.MAX_Z * joint_se, limits.SMALL_NATS)


def _below_bracket_sentence(checks: Checks) -> str:
    assert checks.coverage is not None
    return (
        f"The log evidence of {checks.one_step.log_evidence:.3f} is below its lower bound, the mean"
        f" log-weight {checks.coverage.elbo:.3f}, which only folds of the map can cause. Use the"
        " weighted draws."
    )


def _note(checks: Checks) -> str:
    return checks.evidence_note or f"The evidence of this model is {checks.evidence_status}."


EVIDENCE_RULES = (
    Rule("evidence", UNRELIABLE, _missing, _missing_sentence),
    Rule("evidence error", UNRELIABLE, _wide(limits.MAX_USABLE_SE), _wide_sentence),
    Rule("evidence error", USABLE, _wide(limits.MAX_RELIABLE_SE), _wide_sentence),
    Rule("few steps", UNRELIABLE, _few_step_differs(limits.LARGE_NATS), _few_step_sentence),
    Rule("few steps", USABLE, _few_step_differs(limits.SMALL_NATS), _few_step_sentence),
    Rule(
        "few steps",
        NOTE,
        lambda c: c.few_step is not None and not c.few_step_testifies,
        _few_step_silent,
    ),
    Rule("halves", UNRELIABLE, _halves_differ(limits.GROSS_HALVES_Z), _halves_sentence),
    Rule("halves", USABLE, _halves_differ(limits.MAX_HALVES_Z), _halves_sentence),
    Rule("bracket", UNRELIABLE, _above_bracket(limits.LARGE_NATS), _above_bracket_sentence),
    Rule("bracket", USABLE, _above_bracket(limits.SMALL_NATS), _above_bracket_sentence),
    Rule("bracket", USABLE, _below_bracket, _below_bracket_sentence),
    Rule("evidence note", NOTE, lambda c: c.evidence_status != "normalised", _note),
)
