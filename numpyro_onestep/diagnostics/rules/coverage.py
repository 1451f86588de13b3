"""Rules on points of the posterior that the sampler did not propose."""

import math
from collections.abc import Callable

from .. import limits
from ..checks import Checks
from .base import MORE_TIME, UNRELIABLE, USABLE, Rule, percent


def _missed(checks: Checks) -> bool:
    moved = checks.coverage
    return moved is not None and moved.alarm and moved.excess_share >= limits.MIN_MISSED


def _maybe_missed(checks: Checks) -> bool:
    return checks.coverage is not None and checks.coverage.doubtful


def _missed_sentence(checks: Checks) -> str:
    moved = checks.coverage
    assert moved is not None
    return (
        f"Markov chains that started at the draws {'found' if moved.alarm else 'may have found'}"
        f" parts of the posterior that the draws miss: {percent(moved.beyond_share)} of the"
        f" {moved.num_moved} moved points have a larger weight than any draw, where"
        f" {percent(moved.beyond_expected)} are expected (p = {moved.p_value:.1g}). About"
        f" {percent(moved.excess_share)} of the posterior, more if the chains did not get far, is"
        f" missing from means, intervals and evidence. {MORE_TIME}"
    )


def _unconfirmed(nats: float) -> Callable[[Checks], bool]:
    def applies(checks: Checks) -> bool:
        moved = checks.coverage
        if moved is None:
            return False
        return moved.mean_z < -limits.MAX_Z and moved.expected_eubo - moved.eubo > nats

    return applies


def _unconfirmed_sentence(checks: Checks) -> str:
    moved = checks.coverage
    assert moved is not None
    return (
        f"Moved points of the posterior have smaller weights than the draws predict: log w is"
        f" {moved.eubo:.3f} on average against {moved.expected_eubo:.3f}, {-moved.mean_z:.1f}"
        " standard errors less. The posterior does not confirm the largest weights, or the chains"
        " stayed in one part of it. Take more draws, in double precision if the log-density is"
        " large."
    )


def _gap_excess(checks: Checks) -> float:
    """Nats by which EUBO - log Z exceeds what the effective draws allow; NaN if unknown.

    By Jensen's inequality `E_p[log w] <= log E_p[w]`, and `E_p[w] = E_q[w^2] / Z`, so

        EUBO <= log Z - log(ESS / S)

    holds for the true values, however heavy the tail of the weights.
    """
    upper = checks.coverage
    if upper is None or not checks.ess_fraction > 0:
        return math.nan
    return upper.eubo - checks.one_step.log_evidence_known + math.log(checks.ess_fraction)


def _gap_wide(nats: float) -> Callable[[Checks], bool]:
    def applies(checks: Checks) -> bool:
        upper = checks.coverage
        if upper is None:
            return False
        joint_se = math.hypot(checks.one_step.se, upper.eubo_se)
        return _gap_excess(checks) > max(limits.MAX_Z * joint_se, nats)

    return applies


def _gap_sentence(checks: Checks) -> str:
    assert checks.coverage is not None
    # The sum makes a zero of minus zero.
    upper, allowed = checks.coverage, 0.0 - math.log(checks.ess_fraction)
    return (
        f"Points of the posterior put the upper bound of the log evidence at {upper.eubo:.3f},"
        f" {upper.eubo - checks.one_step.log_evidence_known:.2g} above the estimate, where draws"
        f" worth {percent(checks.ess_fraction)} of their number allow {allowed:.2g}: the draws are"
        f" worth less than their weights say, and the evidence is too low. {MORE_TIME}"
    )


def _inverse_failed(limit: float) -> Callable[[Checks], bool]:
    return lambda checks: checks.coverage is not None and not checks.coverage.failed_share <= limit


def _inverse_sentence(checks: Checks) -> str:
    assert checks.coverage is not None
    return (
        f"The weight of {percent(checks.coverage.failed_share)} of the moved points is unknown,"
        " because no noise was found that the sampler takes there. They may lie in parts of the"
        f" posterior that the sampler cannot propose. {MORE_TIME}"
    )


def _flaw(checks: Checks) -> str:
    """Why nothing has been shown about coverage; "" where it has."""
    moved = checks.coverage
    if moved is None:
        return "no points of the posterior were moved by Markov chains"
    if not moved.detectable_share <= limits.MAX_DETECTABLE:
        return (
            f"{moved.num_moved} moved points from {moved.num_ancestors} different draws would show"
            f" no missed part below {percent(moved.detectable_share)} of the posterior"
        )
    if checks.moved_acceptance is not None and not (
        checks.moved_acceptance >= limits.MIN_ACCEPTANCE
    ):
        return f"only {percent(checks.moved_acceptance)} of the moves were accepted"
    if not moved.move_correlation <= limits.MAX_CORRELATION:
        return (
            "the chains hardly moved, since log-weights before and after correlate at"
            f" {moved.move_correlation:.2f}"
        )
    return ""


def _proves_nothing(checks: Checks) -> bool:
    moved = checks.coverage
    return moved is not None and not moved.detectable_share <= limits.GROSS_DETECTABLE


def _unseen_sentence(checks: Checks) -> str:
    return (
        "Parts of the posterior that the draws miss could have gone unseen:"
        f" {_flaw(checks)}. Weights alone never show such parts; compare with NUTS."
    )


def _out_of_reach(limit: float) -> Callable[[Checks], bool]:
    return lambda checks: checks.missed_share is not None and not checks.missed_share <= limit


def _out_of_reach_sentence(checks: Checks) -> str:
    assert checks.missed_share is not None
    return (
        "The search for modes before training (particles that go from the prior to the posterior,"
        " Gaussian fits from several starts) found a part of the posterior that the draws do not"
        f" reach; it holds about {percent(checks.missed_share)}"
        " of the evidence, whose stated error allows for it; means and intervals lack it. The"
        " posterior may have tails, necks or separate modes that the sampler could not follow: use"
        " a parametrisation, an order of the components or a start (`init_strategy`) that leave"
        " fewer, or a method made for many modes, such as nested sampling."
    )


COVERAGE_RULES = (
    Rule("exploration", UNRELIABLE, _out_of_reach(limits.MAX_MISSED), _out_of_reach_sentence),
    Rule("exploration", USABLE, _out_of_reach(limits.MIN_MISSED), _out_of_reach_sentence),
    Rule("coverage", UNRELIABLE, _missed, _missed_sentence),
    Rule("coverage", USABLE, _maybe_missed, _missed_sentence),
    Rule("gap", UNRELIABLE, _gap_wide(limits.LARGE_NATS), _gap_sentence),
    Rule("gap", USABLE, _gap_wide(limits.SMALL_NATS), _gap_sentence),
    Rule("confirmation", UNRELIABLE, _unconfirmed(limits.LARGE_NATS), _unconfirmed_sentence),
    Rule("confirmation", USABLE, _unconfirmed(limits.SMALL_NATS), _unconfirmed_sentence),
    Rule("inverse", UNRELIABLE, _inverse_failed(limits.GROSS_FAILED), _inverse_sentence),
    Rule("inverse", USABLE, _inverse_failed(limits.MAX_FAILED), _inverse_sentence),
    Rule("witness", UNRELIABLE, _proves_nothing, _unseen_sentence),
    Rule("witness", USABLE, lambda c: _flaw(c) != "", _unseen_sentence),
)
