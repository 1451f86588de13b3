"""Equally weighted draws: independence Metropolis-Hastings chains and resampling.

Statistical tests use fixed seeds; the failure rate named beside each is the chance that a new
seed would fail although the code is right.
"""

import numpy as np
from gaussian import gaussian_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from numpyro_onestep import importance as imp


def test_imh_keeps_every_proposal_of_equal_weight():
    chains = imp.imh_chains(0, np.zeros(40), num_chains=4, num_samples=10)
    assert_array_equal(chains.indices, np.arange(40).reshape(4, 10))
    assert_array_equal(chains.acceptance_rate, np.ones(4))
    assert_array_equal(chains.acceptance_probability, np.ones((4, 10)))


def test_imh_targets_the_weighted_distribution():
    # 40 replicates of 4 x 1000; 4.5 se over 40 means: fails for one seed in 10^5.
    rng = np.random.default_rng(5)
    means, variances, firsts = [], [], []
    for _ in range(40):
        x, log_w = gaussian_weights(rng, 4000, proposal_sd=1.6)
        chains = imp.imh_chains(rng, log_w, num_chains=4, num_samples=1000)
        draws = x[chains.indices]
        means.append(draws.mean())
        variances.append((draws**2).mean())
        firsts.append((draws[:, 0] ** 2).mean())
    for values, truth in ((means, 0.0), (variances, 1.0), (firsts, 1.0)):
        assert abs(np.mean(values) - truth) < 4.5 * np.std(values) / np.sqrt(len(values))


def test_imh_start_is_as_good_as_any_other_draw():
    # The first draw of chains that start at their first proposal would have variance 4, not 1.
    # 4 se of a chi-square mean over 2000 chains: fails for one seed in 16,000.
    rng = np.random.default_rng(11)
    x, log_w = gaussian_weights(rng, 2000 * 30, proposal_sd=2.0)
    chains = imp.imh_chains(rng, log_w, num_chains=2000, num_samples=30)
    for position in (0, 1, 15, 29):
        assert abs(np.mean(x[chains.indices[:, position]] ** 2) - 1) < 4 * np.sqrt(2 / 2000)


def test_imh_circle_is_a_plain_chain_from_any_start():
    # Every start, run once through the proposals, ends in the state before position 0.
    rng = np.random.default_rng(2)
    log_w = 2 * rng.standard_normal(60)
    states = imp.imh_chains(9, log_w, num_chains=1, num_samples=60).indices[0]
    log_u = np.log1p(-np.random.default_rng(9).random((1, 60)))[0]
    for start in range(0, 60, 7):
        current, path = start, []
        for i in range(60):
            if log_u[i] <= log_w[i] - log_w[current]:
                current = i
            path.append(current)
        assert current == states[-1]
        after_top = int(np.argmax(log_w))
        assert_array_equal(path[after_top:], states[after_top:])


def test_imh_never_holds_a_draw_without_positive_weight():
    rng = np.random.default_rng(0)
    log_w, sign = rng.standard_normal(400), np.ones(400)
    sign[::3], log_w[1::7], log_w[2::11], log_w[5::13] = -1, -np.inf, np.nan, np.inf
    chains = imp.imh_chains(rng, log_w, sign, num_chains=2, num_samples=200)
    assert np.all(sign[chains.indices] > 0) and np.all(np.isfinite(log_w[chains.indices]))
    assert np.all(np.isfinite(chains.acceptance_probability))
    assert np.all((chains.acceptance_rate > 0.2) & (chains.acceptance_rate < 0.8))


def test_imh_chain_without_weight_stays_put_and_says_so():
    log_w = np.r_[np.zeros(10), np.full(10, -np.inf)]
    chains = imp.imh_chains(0, log_w, num_chains=2, num_samples=10)
    assert_array_equal(chains.indices[1], np.full(10, 10))
    assert_array_equal(chains.acceptance_rate, [1.0, 0.0])
    assert_array_equal(chains.acceptance_probability[1], np.zeros(10))


def test_imh_sticks_to_a_dominating_weight():
    log_w = np.zeros(400)
    log_w[250] = 50.0
    chains = imp.imh_chains(0, log_w, num_chains=4, num_samples=100)
    assert_array_equal(chains.indices[2], np.full(100, 250))
    assert chains.acceptance_rate[2] == 0.01 and chains.acceptance_rate[0] == 1.0


def test_imh_thins_when_there_are_more_proposals_than_draws():
    rng = np.random.default_rng(0)
    x, log_w = gaussian_weights(rng, 4 * 1000 + 3, proposal_sd=2.0)
    thinned = imp.imh_chains(1, log_w, num_chains=4, num_samples=300)
    full = imp.imh_chains(1, log_w, num_chains=4, num_samples=1000)
    kept = (np.arange(300) + 1) * 1000 // 300 - 1
    assert_array_equal(thinned.indices, full.indices[:, kept])
    assert_allclose(
        np.average(thinned.acceptance_probability[0], weights=np.diff(np.r_[-1, kept])),
        full.acceptance_probability[0].mean(),
    )
    # acceptance probabilities are what the rate estimates: 4 binomial standard errors
    assert abs(full.acceptance_probability.mean() - full.acceptance_rate.mean()) < 4 * 0.5 / 63


def test_imh_is_deterministic_given_the_seed():
    log_w = np.random.default_rng(0).standard_normal(100)
    first, second, other = (
        imp.imh_chains(seed, log_w, num_chains=2, num_samples=50).indices for seed in (3, 3, 4)
    )
    assert_array_equal(first, second)
    assert np.any(first != other)


# ---------------------------------------------------------------------------- resampling


@given(seed=st.integers(0, 2**32 - 1), num=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_systematic_counts_differ_from_expectation_by_less_than_one(seed, num):
    rng = np.random.default_rng(seed)
    log_w = 3 * rng.standard_normal(50)
    log_w[::5] = -np.inf
    probability = np.exp(log_w - np.logaddexp.reduce(log_w))
    counts = np.bincount(imp.systematic_indices(rng, log_w, num), minlength=50)
    assert counts.sum() == num and np.all(counts[::5] == 0)
    assert np.all(np.abs(counts - num * probability) < 1 + 1e-9)


def test_resampling_shuffles_and_keeps_the_counts():
    log_w = np.random.default_rng(0).standard_normal(200)
    shuffled = imp.resample_indices(4, log_w, 500)
    assert np.any(np.diff(shuffled) < 0)
    assert_array_equal(np.sort(shuffled), imp.systematic_indices(4, log_w, 500))


def test_without_replacement_no_draw_repeats_and_large_weights_come_first():
    log_w = np.log(np.arange(1.0, 101.0))
    log_w[:10] = -np.inf
    rng = np.random.default_rng(0)
    indices = imp.resample_indices(rng, log_w, 90, replace=False)
    assert_array_equal(np.sort(indices), np.arange(10, 100))
    # The first pick is proportional to the weight: 4 se over 4000 repeats, one seed in 16,000.
    first = [imp.top_k_indices(rng, log_w, 3)[0] for _ in range(4000)]
    weight = np.exp(log_w)
    truth = weight[50:].sum() / weight.sum()
    assert abs(np.mean(np.array(first) >= 50) - truth) < 4 * np.sqrt(truth * (1 - truth) / 4000)
