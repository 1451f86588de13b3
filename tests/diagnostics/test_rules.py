"""The table of rules behind the verdict: every rule, and what no single number decides."""

from dataclasses import replace

import numpy as np
import pytest
from proposals import checks_of, gaussian, lognormal, moved_coverage, pareto

from numpyro_onestep import diagnostics as diag
from numpyro_onestep.diagnostics.rules import RULES, Rule
from numpyro_onestep.diagnostics.rules.base import percent
from numpyro_onestep.importance import evidence, systematic_indices, tail_excess
from numpyro_onestep.inference_data import psis


def healthy(seed=0):
    """A run like eight schools: ESS fraction 0.95, k-hat well below 0.5, everything measured."""
    rng = np.random.default_rng(seed)
    under_q, under_p = lognormal(0.22)
    log_w = under_q(rng, 4000)
    ancestors = systematic_indices(rng, log_w, 1000)
    coverage = diag.coverage(log_w, None, under_p(rng, 1000), None, ancestors)
    few = under_q(rng, 4000)
    few_k = psis(few)[1]
    return checks_of(
        log_w,
        coverage,
        moved_acceptance=0.7,
        few_step=evidence(few, pareto_k=few_k),
        few_step_pareto_k=few_k,
        halves_z=diag.independent_halves(log_w),
    )


HEALTHY = healthy()


@pytest.mark.parametrize("seed", range(20))
def test_healthy_run_is_reliable(seed):
    checks = healthy(seed)
    verdict = diag.judge(checks)
    assert verdict.label == "reliable", verdict.reasons
    assert len(verdict.reasons) == 1
    assert "4000 draws are worth 38" in verdict.reasons[0]
    assert diag.judge(replace(checks, pareto_k=0.45)).label == "reliable"


def estimate(log_evidence, se=0.005):
    return replace(HEALTHY.one_step, log_evidence=log_evidence, log_evidence_known=log_evidence,
                   se=se)  # fmt: skip


def covered(**change):
    return {"coverage": replace(HEALTHY.coverage, **change)}


USABLE, UNRELIABLE = "usable_with_weights", "unreliable"
CASES = {  # name: (change of the healthy checks, label, rule, a word of the sentence)
    "diverged": ({"training_diverged": True}, UNRELIABLE, "training", "diverged"),
    "interrupted": ({"stopped_early": "interrupted"}, USABLE, "stopped", "(interrupted)"),
    "1 % unknown": ({"finite_share": 0.99}, USABLE, "finite", "1 % of the 4000 draws"),
    "2 % unknown": ({"finite_share": 0.98}, UNRELIABLE, "finite", "Only 98 %"),
    "none known": ({"finite_share": 0.0, "ess_fraction": 0.0}, UNRELIABLE, "finite", "Only 0 %"),
    "ess 360": ({"ess_fraction": 0.5, "num_draws": 720}, USABLE, "ess", "worth 360"),
    "ess 40": ({"ess_fraction": 0.01}, UNRELIABLE, "ess", "worth 40"),
    "ess fraction": ({"ess_fraction": 0.05, "num_draws": 40_000}, USABLE, "ess", "chains"),
    "k 0.5": ({"pareto_k": 0.5}, USABLE, "pareto k", "rather heavy"),
    "k 0.69": ({"pareto_k": 0.69}, USABLE, "pareto k", "rather heavy"),
    "k 1.1 of little": (
        {"pareto_k": 1.1, "tail_excess": 0.005}, USABLE, "pareto k", "quantiles rather than",
    ),
    "k 0.71": ({"pareto_k": 0.71}, UNRELIABLE, "pareto k", "above 0.70"),
    "k of few draws": (
        {"pareto_k": 0.6, "num_draws": 200, "ess_fraction": 1.0}, UNRELIABLE, "pareto k",
        "above 0.57",
    ),
    "k failed": ({"pareto_k": float("inf")}, UNRELIABLE, "pareto k", "heavy"),
    "folds 2 %": ({"folded_fraction": 0.02}, USABLE, "folds", "2 %"),
    "folds 10 %": ({"folded_fraction": 0.1}, UNRELIABLE, "folds", "10 %"),
    "no evidence": (
        {"one_step": estimate(float("nan"), float("inf"))}, UNRELIABLE, "evidence", "outweigh",
    ),
    "evidence error": ({"one_step": estimate(0.0, 0.2)}, USABLE, "evidence error", "0.2"),
    "evidence unknown": ({"one_step": estimate(0.0, 0.9)}, UNRELIABLE, "evidence error", "0.9"),
    "few steps higher": ({"few_step": estimate(0.1)}, USABLE, "few steps", "0.100"),
    "few steps lower": ({"few_step": estimate(-0.1)}, USABLE, "few steps", "-0.100"),
    "few steps far": ({"few_step": estimate(0.73)}, UNRELIABLE, "few steps", "0.730"),
    "halves": ({"halves_z": -4.0}, USABLE, "halves", "4.0 standard errors"),
    "halves far": ({"halves_z": 6.0}, UNRELIABLE, "halves", "6.0 standard errors"),
    "half empty": ({"halves_z": float("nan")}, UNRELIABLE, "halves", "cannot be compared"),
    "above EUBO": (covered(eubo=-0.2), USABLE, "bracket", "upper bound"),
    "far above EUBO": (covered(eubo=-0.5), UNRELIABLE, "bracket", "upper bound"),
    "wide gap": (covered(eubo=0.15), USABLE, "gap", "worth less than their weights say"),
    "wide gap by far": (covered(eubo=0.5), UNRELIABLE, "gap", "95 % of their number"),
    "below ELBO": (covered(elbo=0.2), USABLE, "bracket", "lower bound"),
    "missed": (covered(p_value=1e-4, excess_share=0.02), UNRELIABLE, "coverage", "found"),
    "missed little": (covered(p_value=1e-4, excess_share=0.002), USABLE, "coverage", "found"),
    "maybe missed": (
        covered(p_value=2e-3, excess_share=0.02), USABLE, "coverage", "may have found",
    ),
    "unconfirmed": (covered(mean_z=-5.0, expected_eubo=0.12), USABLE, "confirmation", "5.0"),
    "unconfirmed by far": (
        covered(mean_z=-9.0, expected_eubo=0.5), UNRELIABLE, "confirmation", "9.0",
    ),
    "inverse fails": (covered(failed_share=0.05), USABLE, "inverse", "5 %"),
    "inverse fails often": (covered(failed_share=0.2), UNRELIABLE, "inverse", "20 %"),
    "a tail of few draws": ({"tail_ess": 194.0, "tail_site": "beta"}, USABLE, "tail ess", "'beta'"),
    "a tail of single draws": (
        {"tail_ess": 20.0, "tail_site": "beta"}, UNRELIABLE, "tail ess", "20 independent",
    ),
    "other start": ({"missed_share": 0.01}, USABLE, "exploration", "1 % of the evidence"),
    "too much of it": ({"missed_share": 0.03}, UNRELIABLE, "exploration", "3 % of the evidence"),
    "other mode": ({"missed_share": 0.5}, UNRELIABLE, "exploration", "50 % of the evidence"),
    "nothing but other modes": (
        {"missed_share": 1.0, "one_step": estimate(-31.3, float("inf"))},
        UNRELIABLE, "exploration", "100 % of the evidence",
    ),  # fmt: skip
    "not moved": ({"coverage": None}, USABLE, "witness", "no points"),
    "hardly any moved": (covered(detectable_share=0.37), UNRELIABLE, "witness", "below 37 %"),
    "few moved": (covered(detectable_share=0.1), USABLE, "witness", "below 10 %"),
    "rejected moves": ({"moved_acceptance": 0.02}, USABLE, "witness", "2 % of the moves"),
    "rounded": ({"imprecise_share": 0.5}, UNRELIABLE, "precision", "50 % of the weight"),
    "rounded a little": ({"imprecise_share": 0.005}, USABLE, "precision", "enable_x64"),
    "in double": ({"in_double": True}, "reliable", "precision", "In single precision"),
    "undefined": ({"undefined_share": 0.5}, "reliable", "undefined", "NaN at 50 %"),
    "undefined site": (
        {"undefined_sites": {"root": 0.5}}, "reliable", "undefined sites", "'root' in 50 % of"
    ),
    "standing still": (covered(move_correlation=0.99), USABLE, "witness", "hardly moved"),
}  # fmt: skip


def test_the_error_says_where_it_comes_from():
    few = diag.judge(replace(HEALTHY, one_step=estimate(-31.3, 0.2)))
    assert any("Take more draws" in reason for reason in few.reasons)
    missed = diag.judge(replace(HEALTHY, one_step=estimate(-31.3, 0.2), missed_share=0.18))
    assert not any("Take more draws" in reason for reason in missed.reasons)
    assert any("More draws do not make it smaller" in reason for reason in missed.reasons)


@pytest.mark.parametrize("name", CASES)
def test_each_rule(name):
    change, label, rule_name, word = CASES[name]
    checks = replace(HEALTHY, **change)
    verdict = diag.judge(checks)
    fired = next(rule for rule in RULES if rule.name == rule_name and rule.applies(checks))
    sentence = fired.sentence(checks)
    assert verdict.label == label, verdict.reasons
    assert sentence in verdict.reasons
    assert word in sentence
    assert sentence.endswith(".") and (sentence[0].isupper() or sentence[0].isdigit())


def test_every_rule_has_its_case():
    fired = {
        (rule.name, rule.severity)
        for change, *_ in CASES.values()
        for rule in RULES
        if rule.applies(replace(HEALTHY, **change))
    }
    judged = {(rule.name, rule.severity) for rule in RULES if rule.severity != "note"}
    assert judged <= fired


@pytest.mark.parametrize(
    "name", ["finite_share", "ess_fraction", "pareto_k", "folded_fraction", "moved_acceptance",
             "halves_z", "missed_share", "imprecise_share"],
)  # fmt: skip
def test_nan_is_never_reliable(name):
    assert diag.judge(replace(HEALTHY, **{name: float("nan")})).label != "reliable"


@pytest.mark.parametrize("field", ["failed_share", "detectable_share", "move_correlation"])
def test_nan_in_coverage_is_never_reliable(field):
    assert diag.judge(replace(HEALTHY, **covered(**{field: float("nan")}))).label != "reliable"


def test_heavy_tail_of_nearly_equal_weights_is_harmless():
    # Weights equal but for noise of a thousandth have a tail of any shape and no consequence.
    rng = np.random.default_rng(1)
    log_w = 1e-5 * rng.pareto(1.0, 4000)
    k = psis(log_w)[1]
    share = tail_excess(log_w)
    assert k > 0.7 and share < 1e-3
    assert diag.judge(replace(HEALTHY, pareto_k=k, tail_excess=share)).label == "reliable"
    assert diag.judge(replace(HEALTHY, pareto_k=k)).label == "unreliable"
    # Moved points must have shown that nothing is missed.
    alone = replace(HEALTHY, pareto_k=k, tail_excess=share, coverage=None)
    assert diag.judge(alone).label != "reliable"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1e-300, "less than 0.0001 %"),
        (2e-6, "0.0002 %"),
        (0.0123, "1.2 %"),
        (1, "100 %"),
    ],
)
def test_percentages_read_as_words(share, text):
    assert percent(share) == text


def test_bad_few_step_sampler_cannot_testify():
    checks = replace(HEALTHY, few_step=estimate(-3.0), few_step_pareto_k=0.9)
    verdict = diag.judge(checks)
    assert verdict.label == "reliable"
    assert "neither confirm nor deny" in verdict.reasons[-1] and "0.90" in verdict.reasons[-1]
    assert diag.judge(replace(checks, coverage=None)).label == "usable_with_weights"
    unknown = replace(HEALTHY, few_step=estimate(float("nan"), float("inf")))
    assert not unknown.few_step_testifies and diag.judge(unknown).label == "reliable"


def test_small_significant_difference_of_evidence_decides_nothing():
    # 0.04 nat at an error of 0.001: significant, and of no consequence.
    checks = replace(HEALTHY, one_step=estimate(0.0, 1e-3), few_step=estimate(0.04, 1e-3))
    assert diag.judge(checks).label == "reliable"


@pytest.mark.parametrize("status", ["noted", "refused"])
def test_evidence_status_is_a_note(status):
    checks = replace(HEALTHY, evidence_status=status, evidence_note="A factor is not normalised.")
    verdict = diag.judge(checks)
    assert verdict.label == "reliable"
    assert verdict.reasons[-1] == "A factor is not normalised."
    assert status in diag.judge(replace(checks, evidence_note="")).reasons[-1]


def test_a_reliable_run_without_evidence_names_none():
    refused = diag.judge(replace(HEALTHY, evidence_status="refused")).reasons[0]
    assert "log evidence" in diag.judge(HEALTHY).reasons[0] and "evidence" not in refused


def test_refused_evidence_may_be_missing():
    checks = replace(HEALTHY, evidence_status="refused", one_step=estimate(np.nan, np.inf))
    assert diag.judge(checks).label == "reliable"


def test_unknown_weights_do_not_read_as_missing_evidence():
    some = replace(HEALTHY.one_step, log_evidence=float("nan"), se=float("inf"))
    verdict = diag.judge(replace(HEALTHY, one_step=some, finite_share=0.995))
    assert verdict.label == "usable_with_weights" and len(verdict.reasons) == 1


def test_gravest_reason_first_and_one_for_each_rule():
    checks = replace(
        HEALTHY, pareto_k=2.0, ess_fraction=0.002, stopped_early="time limit",
        evidence_status="noted", evidence_note="A note.",
    )  # fmt: skip
    verdict = diag.judge(checks)
    assert verdict.label == "unreliable"
    assert len(verdict.reasons) == 4
    assert "time limit" in verdict.reasons[2] and verdict.reasons[3] == "A note."


def test_a_new_check_is_one_row():
    cold = Rule("cold", "unreliable", lambda c: c.num_draws == 4000, lambda c: "Too cold.")
    assert diag.judge(HEALTHY, (*RULES, cold)).reasons == ("Too cold.",)


@pytest.mark.parametrize(
    "change",
    [{"num_draws": 0}, {"finite_share": 1.2}, {"ess_fraction": -0.1}, {"folded_fraction": 2.0},
     {"moved_acceptance": -1.0}, {"evidence_status": "fine"}],
)  # fmt: skip
def test_checks_refuse_impossible_numbers(change):
    with pytest.raises(ValueError, match="expected .*; got"):
        replace(HEALTHY, **change)


@pytest.mark.parametrize(
    "weights",
    [lognormal(0.2), lognormal(1.0), lognormal(1.5), pareto(0.3), pareto(0.5), pareto(0.6)],
    ids=["lognormal 0.2", "lognormal 1", "lognormal 1.5", "pareto 0.3", "pareto 0.5", "pareto 0.6"],
)
def test_gap_of_healthy_weights_is_within_their_ess(weights):
    # Jensen's inequality leaves room: no alarm in 100 repeats, nor in 1000 of other seeds.
    under_q, under_p = weights
    rng = np.random.default_rng(19)
    (gap,) = {rule.applies for rule in RULES if rule.name == "gap" and rule.severity == USABLE}
    for _ in range(100):
        log_w = under_q(rng, 4000)
        ancestors = systematic_indices(rng, log_w, 1000)
        coverage = diag.coverage(log_w, None, under_p(rng, 1000), None, ancestors)
        assert not gap(checks_of(log_w, coverage))


@pytest.mark.parametrize("sd, labels", [(0.95, {"reliable"}), (0.4, {"unreliable"})])
def test_verdict_end_to_end(sd, labels):
    # N(0, I) in 5 dimensions under a proposal nearly right, and under one much too narrow.
    rng = np.random.default_rng(18)
    for _ in range(10):
        log_w, coverage = moved_coverage(rng, gaussian(sd, 5))
        verdict = diag.judge(checks_of(log_w, coverage, halves_z=diag.independent_halves(log_w)))
        assert verdict.label in labels, verdict.reasons
