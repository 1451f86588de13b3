"""Coverage of moved points, halves, and the table of rules behind the verdict.

Statistical tests use fixed seeds; the failure rate named beside each is the chance that a new
seed would fail although the code is right. Proposals q and posteriors p are analytic throughout.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from numpyro_onestep import diagnostics as diag
from numpyro_onestep.diagnostics.rules import RULES, Rule
from numpyro_onestep.importance import ess, evidence, finite_share, systematic_indices, tail_excess
from numpyro_onestep.inference_data import psis

# ------------------------------------------------------------------- proposals and posteriors


def lognormal(sd):
    """Samplers of log w under q and under p, for log-normal weights of mean one."""
    return (
        lambda rng, n: sd * rng.standard_normal(n) - sd**2 / 2,
        lambda rng, n: sd * rng.standard_normal(n) + sd**2 / 2,
    )


def pareto(k):
    """The same for Pareto weights of tail index 1/k."""
    return (
        lambda rng, n: k * rng.exponential(size=n) + np.log1p(-k),
        lambda rng, n: k / (1 - k) * rng.exponential(size=n) + np.log1p(-k),
    )


def gaussian(sd, dim):
    """Sampler of q = N(0, sd^2 I) and log w for p = N(0, I)."""
    return (
        lambda rng, n: sd * rng.standard_normal((n, dim)),
        lambda x: -0.5 * np.sum(x**2, axis=1) * (1 - sd**-2) + dim * np.log(sd),
    )


def truncated(mass, dim):
    """q = p = N(0, I) without the region x_1 > c that holds `mass`; log w = 13.8 inside it."""
    edge = stats.norm.isf(mass)

    def draw(rng, n):
        x = rng.standard_normal((n, dim))
        x[:, 0] = stats.norm.ppf(rng.random(n) * (1 - mass))
        return x

    return draw, lambda x: np.where(x[:, 0] < edge, np.log1p(-mass), -np.log(1e-6))


def move(rng, x, num_steps=5, step=None):
    """MALA steps that leave N(0, I) invariant."""
    h = 1.3 * x.shape[1] ** (-1 / 6) if step is None else step
    for _ in range(num_steps):
        there = x * (1 - h**2 / 2) + h * rng.standard_normal(x.shape)
        forth = np.sum((there - x * (1 - h**2 / 2)) ** 2, axis=1)
        back = np.sum((x - there * (1 - h**2 / 2)) ** 2, axis=1)
        log_ratio = 0.5 * np.sum(x**2 - there**2, axis=1) + (forth - back) / (2 * h**2)
        accept = np.log(rng.random(len(x))) < log_ratio
        x = np.where(accept[:, None], there, x)
    return x


def moved_coverage(rng, proposal, num_draws=4000, num_moved=1000, **moves):
    """Draws, resampled, moved and compared: log w of the draws, and their coverage."""
    draw, log_weight = proposal
    x = draw(rng, num_draws)
    log_w = log_weight(x)
    ancestors = systematic_indices(rng, log_w, num_moved)
    moved = log_weight(move(rng, x[ancestors], **moves))
    return log_w, diag.coverage(log_w, None, moved, None, ancestors)


def checks_of(log_w, coverage=None, **other):
    """The checks of a run whose draws have these weights, none folded."""
    k = psis(log_w)[1]
    return diag.Checks(
        num_draws=log_w.size,
        finite_share=finite_share(log_w),
        ess_fraction=ess(log_w).fraction,
        pareto_k=k,
        folded_fraction=0.0,
        one_step=evidence(log_w, pareto_k=k),
        coverage=coverage,
        **other,
    )


# --------------------------------------------------------------------------- coverage: rates


@pytest.mark.parametrize(
    "weights",
    [lognormal(0.2), lognormal(1.0), lognormal(1.5), pareto(0.3), pareto(0.5)],
    ids=["lognormal 0.2", "lognormal 1", "lognormal 1.5", "pareto 0.3", "pareto 0.5"],
)
@pytest.mark.parametrize("num_draws, num_moved", [(4000, 1000), (1000, 500)])
def test_coverage_raises_no_false_alarm(weights, num_draws, num_moved):
    # Rates are 0-0.3 % (alarm) and 0-0.4 % (doubt). At 0.5 %, six doubts or more in 200 repeats
    # (2 % plus 2 se) happen once in 1700 seeds.
    under_q, under_p = weights
    rng = np.random.default_rng(2)
    alarms, doubts, unconfirmed = 0, 0, 0
    for _ in range(200):
        log_w = under_q(rng, num_draws)
        ancestors = systematic_indices(rng, log_w, num_moved)
        result = diag.coverage(log_w, None, under_p(rng, num_moved), None, ancestors)
        alarms += result.alarm
        doubts += result.doubtful
        unconfirmed += result.mean_z < -4
    assert alarms <= 4 and doubts <= 5 and unconfirmed <= 2


@pytest.mark.parametrize("dim", [1, 10])
@pytest.mark.parametrize("sd", [0.95, 1.2, 0.8])
def test_coverage_raises_no_false_alarm_for_moved_points(dim, sd):
    # Rate at most 0.5 %: three or more in 50 repeats once in 400 seeds.
    rng = np.random.default_rng(3)
    results = [moved_coverage(rng, gaussian(sd, dim))[1] for _ in range(50)]
    assert sum(r.alarm for r in results) <= 2


@pytest.mark.parametrize("dim", [1, 3, 10])
@pytest.mark.parametrize(
    "mass, step, alarm_rate, doubt_rate",
    [(0.05, None, 0.99, 0.99), (0.05, 0.3, 0.99, 0.99), (0.02, None, 0.98, 0.99),
     (0.02, 0.3, 0.67, 0.98), (0.01, None, 0.87, 0.93)],
)  # fmt: skip
def test_coverage_detects_a_dropped_region(dim, mass, step, alarm_rate, doubt_rate):
    # Steps of 0.3 lead half of the mass across. 4 se below the measured rates: one seed in
    # 30,000 for each of the cases.
    repeats = 40
    rng = np.random.default_rng(4)
    results = [moved_coverage(rng, truncated(mass, dim), step=step)[1] for _ in range(repeats)]
    for found, rate in (
        (np.mean([r.alarm for r in results]), alarm_rate),
        (np.mean([r.doubtful for r in results]), doubt_rate),
    ):
        assert found >= rate - 4 * np.sqrt(rate * (1 - rate) / repeats)
    assert np.mean([r.excess_share for r in results]) > 0.4 * mass


def funnel_moves(rng, x, num_steps, step):
    """MALA steps that leave Neal's funnel invariant: v ~ N(0, 3^2), the others N(0, e^v)."""

    def log_density(x):
        v, rest = x[:, 0], x[:, 1:]
        return -(v**2) / 18 - 0.5 * np.sum(rest**2, axis=1) * np.exp(-v) - rest.shape[1] * v / 2

    def drift(x):
        v, rest = x[:, :1], x[:, 1:]
        squares = np.sum(rest**2, axis=1, keepdims=True)
        slope = -v / 9 + 0.5 * squares * np.exp(-v) - rest.shape[1] / 2
        return x + 0.5 * step**2 * np.concatenate([slope, -rest * np.exp(-v)], axis=1)

    for _ in range(num_steps):
        there = drift(x) + step * rng.standard_normal(x.shape)
        forth = np.sum((there - drift(x)) ** 2, axis=1)
        back = np.sum((x - drift(there)) ** 2, axis=1)
        log_ratio = log_density(there) - log_density(x) + (forth - back) / (2 * step**2)
        x = np.where((np.log(rng.random(len(x))) < log_ratio)[:, None], there, x)
    return x


@pytest.mark.parametrize("step, seen", [(0.3, True), (0.1, True), (0.7, False)])
def test_neck_of_a_funnel_that_the_draws_dropped(step, seen):
    # q is the funnel without v < -3, 16 % of its mass: ESS 1, k-hat 0, log Z off by 0.17. Steps
    # short enough for the neck find it in 30 of 30 repeats, long ones are rejected there.
    rng = np.random.default_rng(19)
    mass = stats.norm.cdf(-1.0)
    for _ in range(3):
        v = 3 * stats.norm.ppf(mass + (1 - mass) * rng.random(4000))
        x = np.c_[v, np.exp(v / 2)[:, None] * rng.standard_normal((4000, 9))]
        log_w = np.full(4000, np.log1p(-mass))
        ancestors = systematic_indices(rng, log_w, 1000)
        moved = funnel_moves(rng, x[ancestors], 20, step)
        log_w_moved = np.where(moved[:, 0] < -3, 14.0, np.log1p(-mass))
        result = diag.coverage(log_w, None, log_w_moved, None, ancestors)
        assert result.alarm == seen
        if seen:
            assert diag.judge(checks_of(log_w, result)).label == "unreliable"


def test_dropped_region_looks_perfect_without_moved_points():
    # The very weights of the dropped region: constant, k-hat 0, ESS 1. Only the moved points see.
    log_w, coverage = moved_coverage(np.random.default_rng(0), truncated(0.05, 3))
    blind = diag.judge(checks_of(log_w))
    seeing = diag.judge(checks_of(log_w, coverage))
    assert ess(log_w).fraction > 0.999
    assert blind.label == "usable_with_weights"
    assert seeing.label == "unreliable"
    assert "miss" in seeing.reasons[0]


# --------------------------------------------------------------------------- coverage: numbers


def test_bounds_hold_the_evidence_between_them():
    # Log-normal weights of sd s: ELBO = -s^2/2, log Z = 0, EUBO = s^2/2. 4 se: 1 seed in 8000.
    rng = np.random.default_rng(5)
    under_q, under_p = lognormal(0.6)
    log_w = under_q(rng, 4000)
    ancestors = systematic_indices(rng, log_w, 2000)
    result = diag.coverage(log_w, None, under_p(rng, 2000), None, ancestors)
    assert abs(result.elbo + 0.18) < 4 * result.elbo_se
    assert abs(result.eubo - 0.18) < 4 * result.eubo_se
    assert_allclose(result.elbo_se, 0.6 / np.sqrt(4000), rtol=0.1)
    assert result.eubo_se >= 0.9 * 0.6 / np.sqrt(2000)
    assert_allclose(result.gap, result.eubo - result.elbo)
    assert result.num_ancestors == np.unique(ancestors).size


def test_points_that_share_an_ancestor_are_one_observation():
    rng = np.random.default_rng(6)
    log_w = 0.3 * rng.standard_normal(1000)
    single = 0.3 * rng.standard_normal(250)
    ancestors = np.arange(250)
    once = diag.coverage(log_w, None, single, None, ancestors)
    fourfold = diag.coverage(log_w, None, np.repeat(single, 4), None, np.repeat(ancestors, 4))
    assert_allclose(fourfold.eubo_se, once.eubo_se)
    assert_allclose(fourfold.p_value, once.p_value)
    assert_allclose(fourfold.detectable_share, once.detectable_share)


def test_one_family_far_out_is_no_alarm_but_many_are():
    log_w = 0.1 * np.random.default_rng(7).standard_normal(4000)
    moved = np.zeros(1000)
    moved[:30] = 5.0
    ancestors = np.arange(1000)
    assert diag.coverage(log_w, None, moved, None, ancestors).alarm
    ancestors[:30] = 0
    assert not diag.coverage(log_w, None, moved, None, ancestors).alarm


def test_failed_inversions_are_counted_and_left_out():
    rng = np.random.default_rng(8)
    log_w, moved = 0.2 * rng.standard_normal(2000), 0.2 * rng.standard_normal(500)
    ok = np.ones(500, bool)
    ok[:20], moved[:20] = False, 1e6
    moved[20], moved[21] = np.nan, -np.inf
    ancestors = np.arange(500)
    result = diag.coverage(log_w, None, moved, ok, ancestors)
    kept = diag.coverage(log_w, None, moved[22:], None, ancestors[22:])
    assert_allclose(result.failed_share, 22 / 500)
    assert result.num_moved == 500
    assert result == replace(kept, num_moved=500, failed_share=result.failed_share)


def test_no_point_inverted_testifies_nothing():
    log_w = 0.2 * np.random.default_rng(9).standard_normal(2000)
    none = diag.coverage(log_w, None, np.zeros(50), np.zeros(50, bool), np.arange(50))
    assert none.failed_share == 1.0 and none.detectable_share == 1.0 and not none.alarm
    assert diag.judge(checks_of(log_w, none)).label == "unreliable"


def test_point_outside_the_support_of_the_sampler_is_an_alarm():
    log_w = 0.2 * np.random.default_rng(10).standard_normal(4000)
    moved = np.zeros(1000)
    moved[:20] = np.inf
    result = diag.coverage(log_w, None, moved, None, np.arange(1000))
    assert result.alarm and result.eubo == np.inf and result.mean_z == np.inf
    assert result.eubo_se == np.inf


def test_rounding_of_equal_weights_is_no_alarm():
    # An exact sampler: weights equal up to rounding, which the inverse map shifts a little.
    rng = np.random.default_rng(11)
    log_w = 1e-6 * rng.standard_normal(4000) - 70.0
    moved = 1e-6 * rng.standard_normal(1000) - 70.0 + 1e-4
    result = diag.coverage(log_w, None, moved, None, np.arange(1000))
    assert result.p_value == 1.0 and result.mean_z == 0.0 and result.move_correlation == 0.0
    assert diag.judge(checks_of(log_w, result)).label == "reliable"
    coarse = moved + 0.2
    assert diag.coverage(log_w, None, coarse, None, np.arange(1000)).alarm
    assert not diag.coverage(log_w, None, coarse, None, np.arange(1000), resolution=0.1).alarm


def test_points_that_stand_still_are_seen_not_to_move():
    rng = np.random.default_rng(12)
    log_w = rng.standard_normal(4000)
    ancestors = systematic_indices(rng, log_w, 1000)
    result = diag.coverage(log_w, None, log_w[ancestors], None, ancestors)
    assert_allclose(result.move_correlation, 1.0)
    verdict = diag.judge(checks_of(log_w, result))
    assert verdict.label != "reliable" and any("hardly moved" in r for r in verdict.reasons)


def test_freak_weights_that_the_posterior_does_not_confirm():
    # A thousandth of the weights is too large by 6 nats, as rounding or a fold may make them.
    rng = np.random.default_rng(13)
    log_w = 0.2 * rng.standard_normal(4000)
    ancestors = systematic_indices(rng, log_w, 1000)
    moved = 0.2 * rng.standard_normal(1000) + 0.04
    log_w[::100] += 6.0
    result = diag.coverage(log_w, None, moved, None, ancestors)
    assert result.mean_z < -4
    assert diag.judge(checks_of(log_w, result)).label == "unreliable"


@given(shift=st.floats(-1e4, 1e4))
@settings(max_examples=20, deadline=None)
def test_coverage_knows_no_normalising_constant(shift):
    rng = np.random.default_rng(14)
    log_w, moved = rng.standard_normal(400), rng.standard_normal(100) + 1.2
    ancestors = np.arange(100)
    base = diag.coverage(log_w, None, moved, None, ancestors)
    other = diag.coverage(log_w + shift, None, moved + shift, None, ancestors)
    assert_allclose(other.p_value, base.p_value, rtol=1e-6)
    assert_allclose(other.eubo, base.eubo + shift, atol=1e-8)
    assert_allclose(other.gap, base.gap, atol=1e-8)


def test_signs_enter_the_prediction():
    rng = np.random.default_rng(15)
    log_w = rng.standard_normal(1000)
    sign = np.where(rng.random(1000) < 0.05, -1.0, 1.0)
    weight = sign * np.exp(log_w)
    result = diag.coverage(log_w, sign, log_w[:100], None, np.arange(100))
    assert_allclose(result.expected_eubo, np.sum(weight * log_w) / weight.sum())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"log_weight_moved": np.zeros((2, 2))}, "moved log weights"),
        ({"log_weight_moved": np.zeros(0), "ancestors": np.zeros(0, int)}, "moved log weights"),
        ({"inverted_ok": np.ones(3, bool)}, "one flag and one ancestor"),
        ({"ancestors": np.zeros(4)}, "integers"),
        ({"ancestors": np.array([0, 1, 2, 5])}, "integers"),
        ({"log_weight_draws": np.full(5, -np.inf)}, "positive total weight"),
        ({"resolution": -1.0}, "resolution"),
    ],
)
def test_coverage_refuses_bad_input(change, message):
    good = {
        "log_weight_draws": np.zeros(5),
        "sign": None,
        "log_weight_moved": np.zeros(4),
        "inverted_ok": None,
        "ancestors": np.arange(4),
    }
    with pytest.raises(ValueError, match=message):
        diag.coverage(**{**good, **change})


# ------------------------------------------------------------------------------------- halves


def test_independent_halves_of_healthy_draws_agree():
    # |z| < 3.1 in 10,000 repeats; 3.5 is the limit of the verdict.
    rng = np.random.default_rng(16)
    z = [
        diag.independent_halves(weights[0](rng, 1000))
        for weights in (lognormal(0.5), lognormal(1.5), pareto(0.5))
        for _ in range(50)
    ]
    assert np.max(np.abs(z)) < 3.5
    assert np.std(z) > 0.3


def test_independent_halves_see_a_drift():
    log_w = 0.2 * np.random.default_rng(17).standard_normal(4000)
    log_w[2000:] += 0.2
    assert diag.independent_halves(log_w) < -5


def test_independent_halves_at_the_edges():
    assert diag.independent_halves(np.zeros(100)) == 0.0
    half_lost = np.r_[np.zeros(50), np.full(50, np.nan)]
    assert np.isnan(diag.independent_halves(half_lost))
    assert np.isnan(diag.independent_halves(np.r_[np.zeros(50), np.full(50, -np.inf)]))
    with pytest.raises(ValueError, match="at least 4 draws"):
        diag.independent_halves(np.zeros(3))


# ------------------------------------------------------------------------------------ verdict


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
    "other start": ({"missed_share": 0.01}, USABLE, "exploration", "1 % of the evidence"),
    "other mode": ({"missed_share": 0.5}, UNRELIABLE, "exploration", "50 % of the evidence"),
    "not moved": ({"coverage": None}, USABLE, "witness", "no points"),
    "few moved": (covered(detectable_share=0.1), USABLE, "witness", "below 10 %"),
    "rejected moves": ({"moved_acceptance": 0.02}, USABLE, "witness", "2 % of the moves"),
    "standing still": (covered(move_correlation=0.99), USABLE, "witness", "hardly moved"),
}  # fmt: skip


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
             "halves_z", "missed_share"],
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


@pytest.mark.parametrize("sd, labels", [(0.95, {"reliable"}), (0.4, {"unreliable"})])
def test_verdict_end_to_end(sd, labels):
    # N(0, I) in 5 dimensions under a proposal nearly right, and under one much too narrow.
    rng = np.random.default_rng(18)
    for _ in range(10):
        log_w, coverage = moved_coverage(rng, gaussian(sd, 5))
        verdict = diag.judge(checks_of(log_w, coverage, halves_z=diag.independent_halves(log_w)))
        assert verdict.label in labels, verdict.reasons
