"""Importance weights: exact identities, bad weights, and standard errors that cover.

Statistical tests use fixed seeds; the failure rate named beside each is the chance that a new
seed would fail although the code is right.
"""

import numpy as np
import pytest
from gaussian import gaussian_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from numpyro_onestep import importance as imp
from numpyro_onestep.inference_data import psis

WEIGHTS = {  # name: (generator of (S,) log-weights with E[w] = 1)
    "lognormal sd 1": lambda rng, s: rng.standard_normal(s) - 0.5,
    "lognormal sd 1.5": lambda rng, s: 1.5 * rng.standard_normal(s) - 1.125,
    "pareto k 0.3": lambda rng, s: -0.3 * np.log(rng.random(s)) + np.log(0.7),
    "pareto k 0.5": lambda rng, s: -0.5 * np.log(rng.random(s)) + np.log(0.5),
    "pareto k 0.6": lambda rng, s: -0.6 * np.log(rng.random(s)) + np.log(0.4),
    "gaussian k 0.5": lambda rng, s: gaussian_weights(rng, s, proposal_sd=np.sqrt(0.5))[1],
}


# ---------------------------------------------------------------------------- evidence


@pytest.mark.parametrize("name", WEIGHTS)
def test_evidence_standard_error_covers(name):
    # True coverage is 95-98 %. At 95 %, 200 repeats fall below 90 % once in 500 seeds.
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(200):
        log_w = WEIGHTS[name](rng, 2000)
        result = imp.evidence(log_w, pareto_k=psis(log_w)[1])
        covered.append(abs(result.log_evidence) < 2 * result.se)
    assert np.mean(covered) >= 0.90


def test_evidence_standard_error_is_tight_for_light_tails():
    # A covering interval must not be bought by a useless width: bounded weights, k < 0.
    rng = np.random.default_rng(0)
    log_w = np.log(rng.random(4000)) + np.log(2.0)
    result = imp.evidence(log_w, pareto_k=psis(log_w)[1])
    exact = np.sqrt(1 / 3 / 4000)
    assert exact * 0.9 < result.se < exact * 1.3
    assert result.se_holds


def test_signed_evidence_is_exact_where_the_map_folds():
    # T(z) = z + 2.5 sin(2 z) folds; degree 1 makes the signed mean equal to Z = 1.
    # 4 se: fails for one seed in 16,000.
    rng = np.random.default_rng(3)
    z = 2.0 * rng.standard_normal(40_000)
    x, slope = z + 2.5 * np.sin(2 * z), 1 + 5 * np.cos(2 * z)
    log_w = -0.5 * x**2 + np.log(np.abs(slope)) + 0.5 * (z / 2.0) ** 2 + np.log(2.0)
    sign = np.sign(slope)
    signed = imp.evidence(log_w, sign, pareto_k=psis(log_w)[1])
    unsigned = imp.evidence(log_w, pareto_k=psis(log_w)[1])
    assert imp.folded_fraction(sign) > 0.3
    assert abs(signed.log_evidence) < 4 * signed.se
    assert unsigned.log_evidence > 10 * unsigned.se
    assert imp.ess(log_w, sign).count < imp.ess(log_w).count


@given(shift=st.floats(-1e5, 1e5))
@settings(max_examples=30, deadline=None)
def test_evidence_shifts_with_the_weights_and_never_overflows(shift):
    log_w = np.random.default_rng(1).standard_normal(200)
    base, moved = imp.evidence(log_w), imp.evidence(log_w + shift)
    assert_allclose(moved.log_evidence, base.log_evidence + shift, rtol=1e-12, atol=1e-9)
    assert_allclose(moved.se, base.se, rtol=1e-6)


def test_zero_weights_count_as_zero():
    log_w = np.concatenate([np.zeros(500), np.full(500, -np.inf)])
    result = imp.evidence(np.random.default_rng(0).permutation(log_w), pareto_k=0.0)
    assert_allclose(result.log_evidence, np.log(0.5))
    assert_allclose(result.delta_se, np.sqrt(0.25 / 999 * 1000 / 1000) / 0.5, rtol=1e-3)
    assert result.finite_share == 1.0


def test_missed_part_counts_as_one_more_error():
    """A tenth of Z out of reach moves log Z by -log 0.9."""
    _, log_w = gaussian_weights(np.random.default_rng(0), 1000)
    found = imp.evidence(log_w)
    wider = imp.allowing_for_missed(found, 0.1)
    assert wider.log_evidence == found.log_evidence
    assert_allclose(wider.se, np.hypot(found.se, np.log(10.0 / 9.0)))
    assert imp.allowing_for_missed(found, 0.0) == found
    assert imp.allowing_for_missed(found, 1.0).se == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_unknown_weights_make_the_evidence_unknown(bad):
    log_w = np.zeros(100)
    log_w[3] = bad
    result = imp.evidence(log_w)
    assert np.isnan(result.log_evidence) and result.se == np.inf and not result.se_holds
    assert_allclose(result.log_evidence_known, np.log(0.99))
    assert result.finite_share == imp.finite_share(log_w) == 0.99


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
def test_no_usable_weight_at_all(fill):
    log_w = np.full(50, fill)
    result = imp.evidence(log_w)
    assert not np.isfinite(result.log_evidence) and result.se == np.inf and not result.se_holds
    assert imp.ess(log_w) == imp.ESS(0.0, 0.0)


def test_negative_signed_mean_has_no_logarithm():
    result = imp.evidence(np.zeros(40), np.r_[np.ones(10), -np.ones(30)])
    assert np.isnan(result.log_evidence) and result.se == np.inf
    assert imp.ess(np.zeros(40), np.r_[np.ones(10), -np.ones(30)]).count == 0.0


def test_one_dominating_weight_is_flagged_with_a_huge_error():
    log_w = np.zeros(1000)
    log_w[500] = 100.0
    result = imp.evidence(log_w, pareto_k=psis(log_w)[1])
    assert result.se > 10 and imp.ess(log_w).count < 1.001


def test_heavy_tails_and_small_samples_are_not_said_to_hold():
    log_w = np.random.default_rng(0).standard_normal(1000)
    assert imp.evidence(log_w, pareto_k=0.5).se_holds
    for k in (0.75, 1.5, np.inf):
        heavy = imp.evidence(log_w, pareto_k=k)
        assert not heavy.se_holds and np.isfinite(heavy.se)
    assert not imp.evidence(log_w[:20], pareto_k=0.1).se_holds
    single = imp.evidence([0.3])
    assert_allclose(single.log_evidence, 0.3)
    assert single.se == np.inf


def test_standard_error_grows_with_the_tail_index():
    log_w = np.random.default_rng(0).standard_normal(2000)
    errors = [imp.evidence(log_w, pareto_k=k).se for k in (-0.3, 0.0, 0.3, 0.6, 0.9)]
    assert errors == sorted(errors)
    assert imp.evidence(log_w).se == imp.evidence(log_w, pareto_k=0.5).se


def test_block_error_sees_dependent_neighbours():
    log_w = np.repeat(np.random.default_rng(0).standard_normal(100), 40)
    result = imp.evidence(log_w, pareto_k=0.3)
    assert result.block_se > 3 * result.delta_se and result.se >= result.block_se


def test_resolution_adds_in_quadrature():
    log_w = np.random.default_rng(0).standard_normal(2000)
    exact, rounded = imp.evidence(log_w), imp.evidence(log_w, resolution=0.03)
    assert_allclose(rounded.se, np.hypot(exact.se, 0.03))
    with pytest.raises(ValueError, match="expected a resolution >= 0"):
        imp.evidence(log_w, resolution=-1.0)


# ---------------------------------------------------------------------------- shares, ESS, ELBO


def test_ess_of_equal_and_unequal_weights():
    assert_allclose(imp.ess(np.full(80, -700.0)).count, 80)
    assert_allclose(imp.ess(np.log([1.0, 1.0, 2.0])).count, 16 / 6)
    assert_allclose(imp.ess(np.zeros(4), [1, 1, 1, -1]).fraction, 0.25)
    assert_allclose(imp.ess(np.zeros(4), [1, 1, 0, 0]).count, 2)


def test_elbo_is_below_the_evidence():
    _, log_w = gaussian_weights(np.random.default_rng(0), 4000)
    # KL(N(0, 1.3^2) || N(0, 1)) = 0.0826; 4 se.
    assert_allclose(-imp.elbo(log_w), (1.69 - 1 - np.log(1.69)) / 2, atol=4 * log_w.std() / 63)
    assert imp.elbo([0.0, -np.inf]) == -np.inf
    assert imp.elbo([1.0, np.nan]) == 1.0
    assert np.isnan(imp.elbo([np.nan]))


def test_pareto_k_threshold():
    assert_allclose(imp.pareto_k_threshold(100), 0.5)
    assert imp.pareto_k_threshold(10_000) == 0.7
    assert imp.pareto_k_threshold(1) == -np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: imp.evidence(np.zeros((2, 2))), "expected log weights of shape"),
        (lambda: imp.ess([]), "expected log weights of shape"),
        (lambda: imp.ess(np.zeros(3), np.ones(2)), "expected one sign per log weight"),
        (lambda: imp.ess(np.zeros(2), [2, 1]), "expected signs in"),
        (lambda: imp.folded_fraction([]), "expected signs of shape"),
        (lambda: imp.weighted_mean(np.zeros(3), np.zeros(4)), "expected values of shape"),
        (lambda: imp.weighted_quantile(np.zeros(3), 1.0, np.zeros(3)), "expected a probability"),
        (lambda: imp.imh_chains(0, np.zeros(9), num_chains=2, num_samples=5), "at least"),
        (lambda: imp.imh_chains(0, np.zeros(9), num_chains=0, num_samples=5), "num_chains >= 1"),
        (lambda: imp.resample_indices(0, [np.nan, 0.0], 2), "got NaN"),
        (lambda: imp.resample_indices(0, [-np.inf], 2), "at least one positive weight"),
        (lambda: imp.resample_indices(0, [0.0], 0), "expected num >= 1"),
        (lambda: imp.resample_indices(0, [0.0, -np.inf], 2, replace=False), "positive weight"),
    ],
)
def test_bad_input_says_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------------------- estimates


def test_weighted_estimates_cover_the_truth():
    # 2 se covers 95 %; below 90 % of 200 repeats once in 500 seeds, times three statistics.
    rng = np.random.default_rng(0)
    hits = np.zeros(3)
    for _ in range(200):
        x, log_w = gaussian_weights(rng, 1000, proposal_sd=1.5)
        found = (
            imp.weighted_mean(x + 2, log_w),
            imp.weighted_sd(x + 2, log_w),
            imp.weighted_quantile(x, 0.841344746, log_w),
        )
        truths = (2.0, 1.0, 1.0)
        hits += [abs(f.value - t) < 2 * f.mcse for f, t in zip(found, truths, strict=True)]
    assert np.all(hits / 200 >= 0.90)
    assert np.all(hits / 200 <= 0.995)


def test_equal_weights_reduce_to_the_plain_statistics():
    x = np.random.default_rng(0).standard_normal((501, 2, 3))
    zeros = np.zeros(501)
    assert_allclose(imp.weighted_mean(x, zeros).value, x.mean(0), atol=1e-12)
    assert_allclose(imp.weighted_mean(x, zeros).mcse, x.std(0) / np.sqrt(501))
    assert_allclose(imp.weighted_sd(x, zeros).value, x.std(0))
    assert_allclose(imp.weighted_quantile(x, 0.5, zeros).value, np.median(x, axis=0))


def test_draws_without_weight_do_not_spoil_estimates():
    x, log_w = np.array([1.0, 3.0, np.nan, np.inf]), np.array([0.0, 0.0, -np.inf, -np.inf])
    assert imp.weighted_mean(x, log_w).value == 2.0
    assert imp.weighted_sd(x, log_w).value == 1.0
    assert imp.weighted_quantile(x[:2], 0.9, log_w[:2]).value == 3.0
    assert np.isnan(imp.weighted_mean(x, np.full(4, -np.inf)).value)
    constant = imp.weighted_sd(np.full(4, 2.0), np.zeros(4))
    assert constant.value == 0.0 and constant.mcse == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_nobody_knows_are_refused(bad):
    """One of a hundred, in every estimate that could leave it out without a word."""
    x, log_w = np.arange(100.0), np.zeros(100)
    # Weights of zero are known: half of them halve the evidence, and change the mean.
    log_w[:50] = -np.inf
    assert imp.evidence(log_w).log_evidence == pytest.approx(np.log(0.5))
    assert imp.weighted_mean(x, log_w).value == 74.5
    log_w[7] = bad
    for estimate in (
        lambda: imp.weighted_mean(x, log_w),
        lambda: imp.weighted_sd(x, log_w),
        lambda: imp.weighted_quantile(x, 0.5, log_w),
    ):
        with pytest.raises(ValueError, match=r"got NaN or \+inf at 1 of 100 draws"):
            estimate()
    assert np.isnan(imp.evidence(log_w).log_evidence)


def test_signed_estimates_are_exact_where_the_map_folds():
    # As for the evidence, by the same degree argument; 4 se, one seed in 16,000.
    rng = np.random.default_rng(8)
    z = 2.0 * rng.standard_normal(40_000)
    x, slope = z + 2.5 * np.sin(2 * z), 1 + 5 * np.cos(2 * z)
    log_w = -0.5 * (x - 1) ** 2 + np.log(np.abs(slope)) + 0.5 * (z / 2.0) ** 2
    mean = imp.weighted_mean(x, log_w, np.sign(slope))
    median = imp.weighted_quantile(x, 0.5, log_w, np.sign(slope))
    assert abs(mean.value - 1) < 4 * mean.mcse
    assert abs(median.value - 1) < max(4 * median.mcse, 0.2)


def test_tail_excess_is_the_share_above_the_tail_threshold():
    log_w = np.log(np.concatenate([np.ones(975), np.full(25, 5.0)]))
    # The tail is the 95 largest: 25 of them stand 4 above the rest; the total is 975 + 125.
    assert imp.tail_excess(log_w) == pytest.approx(100 / 1100)
    assert imp.tail_excess(np.zeros(1000)) == 0.0
    assert imp.tail_excess(np.full(10, -np.inf)) == 1.0


def test_tail_ess_of_equal_weights_is_their_number():
    values = np.random.default_rng(0).standard_normal((4000, 3))
    np.testing.assert_allclose(imp.tail_ess(values, np.zeros(4000)), 4000.0, rtol=1e-6)
    assert np.all(imp.tail_ess(values, np.full(4000, -np.inf)) == 0.0)
    # What does not vary has no tail.
    assert np.all(imp.tail_ess(np.ones((4000, 1)), np.zeros(4000)) == np.inf)


def test_tail_ess_is_that_of_repeated_estimates():
    """The spread of a tail's share over repeats, where large weights lie in one tail."""
    rng, found, counts = np.random.default_rng(1), [], []
    for _ in range(300):
        x = 0.7 * rng.standard_normal((2000, 1))
        # From a narrower normal: the tails are drawn too seldom.
        log_w = -0.5 * x[:, 0] ** 2 * (1.0 - 0.7**-2)
        weight = np.exp(log_w)
        found.append(weight @ (x[:, 0] <= -1.645) / weight.sum())
        counts.append(imp.tail_ess(x, log_w)[0])
    spread = 0.05 * 0.95 / np.var(found)
    assert 0.6 < np.median(counts) / spread < 1.6
    # Kish's number is larger by far.
    assert np.median(counts) < 0.5 * imp.ess(log_w).count


def test_tail_ess_sees_a_single_heavy_draw():
    x = np.random.default_rng(2).standard_normal((16_000, 1))
    log_w = np.zeros(16_000)
    log_w[np.argmax(x[:, 0])] = np.log(250.0)
    assert imp.ess(log_w).count > 3000.0
    assert imp.tail_ess(x, log_w)[0] < 250.0
    assert imp.tail_ess(-x, log_w)[0] < 250.0
