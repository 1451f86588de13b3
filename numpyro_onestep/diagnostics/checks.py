"""Everything that the verdict draws on, in one place."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..importance import Evidence
from . import limits
from .coverage import Coverage

EvidenceStatus = Literal["normalised", "noted", "refused"]


@dataclass(frozen=True)
class Checks:
    """The findings about one run; what was not measured is None. Natural logarithms throughout.

    Attributes:
        num_draws: S, number of weighted one-step draws.
        finite_share: share of draws, in [0, 1], whose weight is a known number.
        ess_fraction: Kish's effective sample size per draw, in [0, 1].
        pareto_k: PSIS k-hat of the weights; inf where the fit failed.
        tail_excess: share of the total weight, in [0, 1], in the tail that k-hat describes, see
            :func:`importance.tail_excess`.
        tail_ess: independent draws that the weighted ones are worth in the worst tail of a
            coordinate, see :func:`importance.tail_ess`, and the site that it belongs to.
        tail_site: see `tail_ess`.
        folded_fraction: share of draws, in [0, 1], with a negative determinant.
        one_step: evidence from the one-step draws, as computed, whatever `evidence_status` says;
            `missed_share` in its error.
        coverage: points moved by MCMC against the draws. Without it no run is reliable.
        moved_acceptance: mean acceptance of the steps that moved the points, in [0, 1].
        few_step: evidence from draws of the same sampler in more steps.
        few_step_pareto_k: PSIS k-hat of the few-step weights.
        few_step_ess_fraction: their effective sample size per draw, in [0, 1].
        missed_share: share of the evidence, in [0, 1], in regions that the exploration found and
            the draws do not reach.
        halves_z: evidence of one half of the draws against the other, in joint standard errors.
        evidence_status: whether the model's density is normalised, so that the evidence is
            p(y); "noted": kept with a reservation; "refused": not reported.
        evidence_note: the reason in a sentence, "" if normalised.
        undefined_share: share of the prior's draws, in [0, 1], at which the log-density is NaN.
        in_double: whether the log-density had to be computed in double precision.
        imprecise_share: share of the weight of the draws, in [0, 1], that single precision has
            made up, at the least.
        undefined_sites: share of the draws with a known weight, in (0, 1], in which a deterministic
            site is NaN, by name of the site.
        stopped_early: why training ended before its time, such as "interrupted", or "".
        training_diverged: training or its density went to infinity and did not come back.
    """

    num_draws: int
    finite_share: float
    ess_fraction: float
    pareto_k: float
    folded_fraction: float
    one_step: Evidence
    coverage: Coverage | None = None
    moved_acceptance: float | None = None
    few_step: Evidence | None = None
    few_step_pareto_k: float | None = None
    few_step_ess_fraction: float | None = None
    missed_share: float | None = None
    tail_excess: float = 1.0
    tail_ess: float | None = None
    tail_site: str = ""
    halves_z: float | None = None
    evidence_status: EvidenceStatus = "normalised"
    evidence_note: str = ""
    undefined_share: float = 0.0
    in_double: bool = False
    imprecise_share: float = 0.0
    undefined_sites: Mapping[str, float] = field(default_factory=dict)
    stopped_early: str = ""
    training_diverged: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no run can have; NaN passes and fails its rule."""
        if self.num_draws < 1:
            raise ValueError(f"expected num_draws >= 1; got {self.num_draws}")
        shares = (
            "finite_share",
            "ess_fraction",
            "folded_fraction",
            "tail_excess",
            "undefined_share",
            "imprecise_share",
        )
        optional = ("moved_acceptance", "few_step_ess_fraction", "missed_share")
        for name in (*shares, *optional):
            value = getattr(self, name)
            if value is not None and (value < 0 or value > 1 + 1e-6):
                raise ValueError(f"expected {name} in [0, 1]; got {value}")
        if self.evidence_status not in ("normalised", "noted", "refused"):
            raise ValueError(
                "expected evidence_status to be 'normalised', 'noted' or 'refused';"
                f" got {self.evidence_status!r}"
            )

    @property
    def ess_count(self) -> float:
        """Kish's effective sample size as a number of draws."""
        return self.ess_fraction * self.num_draws

    @property
    def tail_is_negligible(self) -> bool:
        """Whether the weights are so nearly equal that the shape of their tail is immaterial.

        Regions that the draws miss altogether are not in the tail either way; points moved by MCMC
        have to speak for those.
        """
        return self.coverage is not None and self.tail_excess <= limits.NEGLIGIBLE_TAIL

    @property
    def tail_is_small(self) -> bool:
        """Whether the tail holds so little that its shape can do limited harm only."""
        return self.coverage is not None and self.tail_excess <= limits.SMALL_TAIL

    @property
    def few_step_testifies(self) -> bool:
        """Whether the few-step evidence is good enough to contradict the one-step evidence."""
        if self.few_step is None or self.few_step_pareto_k is None:
            return False
        finite = math.isfinite(self.few_step.log_evidence) and math.isfinite(self.few_step.se)
        return finite and self.few_step_pareto_k <= 0.7
