"""The judgement on a rescue by NUTS: its own checks, and the verdict that they leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..importance import Bridge, Evidence
from . import limits
from .rules.base import percent
from .verdict import Verdict

Coordinates = Literal["map", "gaussian"]


@dataclass(frozen=True)
class RescueChecks:
    """The findings about the chains of a rescue.

    Attributes:
        coordinates: "map": those of the trained map; "gaussian": those of the Gaussian fit alone.
        num_chains: independent chains, each from a start of its own.
        num_draws: states per chain after warm-up.
        r_hat: largest rank-normalised split r-hat, over all unconstrained coordinates, the
            log-density and the log-weight.
        ess_bulk: smallest effective number of draws in the bulk, over the same.
        ess_tail: likewise in the tails.
        divergent_share: share of divergent transitions, in [0, 1].
        folded_share: share of draws, in [0, 1], at which the map folds, so that it is no bijection.
        missed_share: share of the evidence, in [0, 1], in regions that the exploration found and
            the chains do not reach.
        bridge: evidence from the chains and the sampler's draws together.
        weighted: evidence from the weighted draws alone.
        num_gradients: of the target that the chains took.
        stopped: why they ended before their time, or "".
    """

    coordinates: Coordinates
    num_chains: int
    num_draws: int
    r_hat: float
    ess_bulk: float
    ess_tail: float
    divergent_share: float
    folded_share: float
    missed_share: float
    bridge: Bridge
    weighted: Evidence
    num_gradients: int
    stopped: str = ""

    @property
    def has_enough_draws(self) -> bool:
        """Whether both effective numbers suffice; a NaN does not."""
        enough = limits.MIN_RELIABLE_ESS
        return self.ess_bulk >= enough and self.ess_tail >= enough

    @property
    def mixes(self) -> bool:
        """Whether more states may not be needed."""
        return self.r_hat < limits.MAX_R_HAT and self.has_enough_draws

    @property
    def is_hopeless(self) -> bool:
        """Whether more states would not help."""
        return not (
            self.divergent_share <= limits.MAX_DIVERGENT
            and self.folded_share <= limits.MAX_RESCUE_FOLDED
            and self.r_hat < limits.HOPELESS_R_HAT
        )


def _weights_find_more(checks: RescueChecks) -> bool:
    """Whether the weighted draws hold evidence that the chains have not seen.

    The other way round is what a rescue is for.
    """
    excess = checks.weighted.log_evidence_known - checks.bridge.log_evidence
    joint_se = math.hypot(checks.weighted.se, checks.bridge.se)
    joint_se = joint_se if math.isfinite(joint_se) else checks.bridge.se
    return excess > max(limits.MAX_Z * joint_se, limits.SMALL_NATS)


_FAILURES: tuple[tuple[Callable[[RescueChecks], bool], Callable[[RescueChecks], str]], ...] = (
    (lambda c: c.stopped != "", lambda c: f"the chains were stopped early ({c.stopped})"),
    (
        lambda c: not c.r_hat < limits.MAX_R_HAT,
        lambda c: f"R-hat is {c.r_hat:.3f}, not below {limits.MAX_R_HAT}",
    ),
    (
        lambda c: not c.has_enough_draws,
        lambda c: (
            f"the draws are worth {c.ess_bulk:.0f} in the bulk and {c.ess_tail:.0f} in the tails,"
            f" where {limits.MIN_RELIABLE_ESS} are needed"
        ),
    ),
    (
        lambda c: not c.divergent_share <= limits.MAX_DIVERGENT,
        lambda c: (
            f"{percent(c.divergent_share)} of the transitions diverged, more than"
            f" {percent(limits.MAX_DIVERGENT)}"
        ),
    ),
    (
        lambda c: not c.folded_share <= limits.MAX_RESCUE_FOLDED,
        lambda c: f"the map folds over at {percent(c.folded_share)} of the chains' draws",
    ),
    (
        lambda c: not c.missed_share <= limits.MAX_RESCUE_MISSED,
        lambda c: (
            f"the exploration found {percent(c.missed_share)} of the evidence where the chains did"
            " not get"
        ),
    ),
    (
        lambda c: not (c.bridge.se <= limits.MAX_RELIABLE_SE),
        lambda c: (
            f"the bridge between the chains and the sampler's draws (overlap"
            f" {c.bridge.overlap:.2g}) leaves the log evidence with an error of {c.bridge.se:.2g}"
        ),
    ),
    (
        _weights_find_more,
        lambda c: (
            "the weighted draws hold more evidence than the chains have seen: their log evidence"
            f" is {c.weighted.log_evidence_known:.3f}, that of the bridge"
            f" {c.bridge.log_evidence:.3f}"
        ),
    ),
)

_PLACES = {
    "map": "the coordinates of the trained map",
    "gaussian": "the coordinates of the Gaussian fit",
}
_PROPOSALS = {"map": "the one-step draws", "gaussian": "draws of that fit"}


def failures(checks: RescueChecks) -> tuple[str, ...]:
    """What keeps the rescue from being used, as clauses; none if it passes."""
    return tuple(text(checks) for applies, text in _FAILURES if applies(checks))


def rescued(verdict: Verdict, checks: RescueChecks) -> Verdict:
    """The verdict on a run whose draws were replaced by those of a rescue that passes."""
    account = (
        f"Rescued: the posterior draws come from NUTS in {_PLACES[checks.coordinates]}, and the"
        f" evidence from a bridge between them and {_PROPOSALS[checks.coordinates]}. Judged by the"
        f" checks of NUTS: {checks.num_chains} chains from independent starts, R-hat"
        f" {checks.r_hat:.4f}, effective draws {checks.ess_bulk:.0f} in the bulk and"
        f" {checks.ess_tail:.0f} in the tails, {percent(checks.divergent_share)} divergent"
        f" transitions, {percent(round(checks.missed_share, 4))} of what the exploration found out"
        f" of reach, log evidence with an error of {checks.bridge.se:.2g} (overlap of the two sides"
        f" {checks.bridge.overlap:.2f})."
    )
    return Verdict("rescued", (account, *_of_the_draws(verdict)))


def not_rescued(verdict: Verdict, attempts: tuple[str, ...]) -> Verdict:
    """The verdict on a run that no rescue was found for, with the sentences that say why."""
    return Verdict(verdict.label, (*verdict.reasons, *attempts))


def failed_sentence(checks: RescueChecks) -> str:
    """Why an attempt was not used."""
    return (
        f"A rescue by NUTS in {_PLACES[checks.coordinates]} did not pass its checks:"
        f" {'; '.join(failures(checks))}."
    )


def _of_the_draws(verdict: Verdict) -> tuple[str, ...]:
    label = verdict.label.replace("_", " ")
    first, *rest = verdict.reasons
    return (f"The weighted one-step draws by themselves are {label}: {first}", *rest)
