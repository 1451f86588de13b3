"""Coverage of points moved by MCMC, and independent halves.

Statistical tests use fixed seeds; the failure rate named beside each is the chance that a new
seed would fail although the code is right. Proposals q and posteriors p are analytic throughout.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from proposals import checks_of, gaussian, lognormal, moved_coverage, pareto, truncated
from scipy import stats

from numpyro_onestep import diagnostics as diag
from numpyro_onestep.importance import ess, systematic_indices

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


def test_levels_of_components_are_no_sign_of_chains_that_stand_still():
    """Independent points, in two parts whose weights differ by a constant; an outlier in one."""
    rng = np.random.default_rng(13)
    component = np.arange(4000) % 2
    log_w = np.where(component, -0.2, 0.0) + 0.01 * rng.standard_normal(4000)
    log_w[0] = -1e4
    ancestors = systematic_indices(rng, log_w, 1000)
    moved = np.where(component, -0.2, 0.0)[ancestors] + 0.01 * rng.standard_normal(1000)
    together = diag.coverage(log_w, None, moved, None, ancestors)
    assert together.move_correlation > 0.95
    apart = diag.coverage(log_w, None, moved, None, ancestors, component=component)
    # Four standard errors of a correlation of 1000 pairs: one new seed in 16,000 fails.
    assert abs(apart.move_correlation) < 4.0 / np.sqrt(1000)
    still = diag.coverage(log_w, None, log_w[ancestors], None, ancestors, component=component)
    assert_allclose(still.move_correlation, 1.0)


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
        ({"component": np.zeros(4, int)}, "one component per draw"),
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
