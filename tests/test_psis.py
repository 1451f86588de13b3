"""Pareto-smoothed importance sampling on the installed ArviZ line; CI runs this file on both."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from numpyro_onestep import inference_data as ind


def test_psis_agrees_with_the_published_line():
    log_w = 1.2 * np.random.default_rng(0).standard_normal(3600)
    smoothed, k = ind.psis(log_w)
    assert_allclose(np.logaddexp.reduce(smoothed), 0.0, atol=1e-12)
    # Computed once with arviz 0.23.4 at S = 3600, where both lines' tails are 180 draws.
    assert_allclose(k, 0.183534487, atol=1e-8)
    assert_allclose(smoothed.max(), -5.193282765, atol=1e-8)
    assert smoothed.max() <= log_w.max() - np.logaddexp.reduce(log_w) + 0.1
    body = log_w < np.quantile(log_w, 0.9)
    assert_allclose(np.ptp((smoothed - log_w)[body]), 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("num", "expected"), [(30, 0.308411), (226, 0.388925), (1001, 0.274666), (4003, 0.216188)]
)
def test_psis_is_equal_on_both_lines(num, expected):
    # One number for both lines at sizes where their own tail lengths differ.
    log_w = np.random.default_rng(num).standard_normal(num)
    assert_allclose(ind.psis(log_w)[1], expected, atol=2e-6)


def test_psis_shape_finds_the_tail_index():
    # k-hat of 4000 Pareto(k) weights has sd 0.11 around k: 4 sd.
    rng = np.random.default_rng(0)
    for k in (0.3, 0.5, 0.8):
        assert abs(ind.psis(-k * np.log(rng.random(4000)))[1] - k) < 0.45
    assert ind.psis(np.log(rng.random(4000)))[1] < 0.1
    assert ind.psis(3.0 * rng.standard_cauchy(4000))[1] > 0.7


def test_psis_keeps_zero_weights_at_zero():
    log_w = np.random.default_rng(0).standard_normal(1000)
    padded = np.full(3000, -np.inf)
    padded[::3] = log_w
    smoothed, k = ind.psis(padded)
    plain, plain_k = ind.psis(log_w)
    assert k == plain_k
    assert_array_equal(smoothed[::3], plain)
    assert np.all(smoothed[1::3] == -np.inf)
    unknown = np.where(np.isinf(padded), np.nan, padded)
    assert_array_equal(ind.psis(unknown)[0], smoothed)


@pytest.mark.parametrize("value", [0.0, -700.0])
def test_psis_of_equal_weights_has_no_tail(value):
    smoothed, k = ind.psis(np.full(400, value))
    assert k == 0.0
    assert_allclose(smoothed, -np.log(400))
    capped = np.minimum(np.random.default_rng(0).standard_normal(400), 0.0)
    assert ind.psis(capped)[1] == 0.0


@pytest.mark.parametrize("num", [1, 2, 5, 24])
def test_psis_of_few_weights_cannot_tell(num):
    log_w = np.random.default_rng(0).standard_normal(num)
    smoothed, k = ind.psis(log_w)
    assert k == np.inf
    assert_allclose(smoothed, log_w - np.logaddexp.reduce(log_w))


def test_psis_without_usable_weights():
    for log_w in (np.full(50, np.nan), np.full(50, -np.inf)):
        smoothed, k = ind.psis(log_w)
        assert k == np.inf and np.all(smoothed == -np.inf)
    with pytest.raises(ValueError, match="expected log weights of shape"):
        ind.psis(np.zeros((2, 3)))


@pytest.mark.parametrize("seed", range(20))
def test_psis_never_returns_nan(seed):
    # Ties, huge ranges, mass zeros: k-hat is a number or inf, and the weights stay normalised.
    rng = np.random.default_rng(seed)
    log_w = 10.0 ** rng.uniform(-9, 3) * rng.standard_normal(int(rng.integers(25, 700)))
    log_w = np.round(log_w, int(rng.integers(0, 4)))
    log_w[rng.random(log_w.size) < rng.random()] = -np.inf
    smoothed, k = ind.psis(log_w)
    assert not np.isnan(k)
    if np.any(np.isfinite(log_w)):
        assert_allclose(np.logaddexp.reduce(smoothed), 0.0, atol=1e-9)
    assert_array_equal(np.isfinite(smoothed), np.isfinite(log_w))
