"""Ranks among weighted draws, the test of their uniformity, what comes of them; without any fit.

Statistical tests have fixed seeds; their limits are exceeded by chance in fewer than 1 of 1000.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from numpyro_onestep import Calibration
from numpyro_onestep.diagnostics import uniformity_band, uniformity_p_value
from numpyro_onestep.importance import weighted_ranks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

    try:
        from arviz.stats.ecdf_utils import ecdf_confidence_band
    except ImportError:
        from arviz_stats import ecdf_utils

NUM = 60


def test_equal_weights_give_the_ordinary_rank():
    rng = np.random.default_rng(0)
    values, truth = rng.normal(size=(99, 2, 3)), rng.normal(size=(2, 3))
    ranks = weighted_ranks(truth, values, np.full(99, -700.0), generator=1)
    uniform = np.random.default_rng(1).random((2, 3))
    np.testing.assert_allclose(ranks, ((values < truth).sum(0) + uniform) / 100.0)


def test_ranks_among_weighted_draws_are_uniform():
    """Draws too wide by 60 %, with their weights; without these the ranks bunch in the middle."""
    rng = np.random.default_rng(0)
    weighted, plain = [], []
    for i in range(400):
        truth, values = rng.normal(), 1.6 * rng.normal(size=200)
        log_weight = stats.norm.logpdf(values) - stats.norm(0.0, 1.6).logpdf(values)
        weighted.append(weighted_ranks(truth, values, log_weight, generator=i))
        plain.append(weighted_ranks(truth, values, np.zeros(200), generator=i))
    assert stats.kstest(weighted, "uniform").pvalue > 1e-3
    assert stats.kstest(plain, "uniform").pvalue < 1e-3


def test_ties_are_broken_evenly():
    rng = np.random.default_rng(0)
    ranks = [
        weighted_ranks(rng.integers(3), rng.integers(3, size=50), np.zeros(50), generator=i)
        for i in range(400)
    ]
    assert stats.kstest(ranks, "uniform").pvalue > 1e-3


def test_ranks_with_folds_and_without_a_value():
    values = np.arange(4.0)
    sign = np.array([1.0, 1.0, -1.0, 1.0])
    # Two draws below, one above, a fold above takes one away: all of the weight is below.
    assert 0.7 < weighted_ranks(1.5, values, np.zeros(4), sign, generator=0) <= 1.0
    log_weight = np.array([0.0, 0.0, -np.inf, 0.0])
    silent = np.array([0.0, 1.0, np.nan, 3.0])
    assert np.isfinite(weighted_ranks(1.5, silent, log_weight, generator=0))
    assert np.isnan(weighted_ranks(1.5, silent, np.zeros(4), generator=0))
    assert np.isnan(weighted_ranks(np.nan, values, np.zeros(4), generator=0))
    assert np.isnan(weighted_ranks(1.5, values, np.full(4, -np.inf), generator=0))
    with pytest.raises(ValueError, match=r"expected values of shape \(4, 2\)"):
        weighted_ranks(np.zeros(2), values, np.zeros(4), generator=0)


def test_p_values_of_uniform_numbers_are_uniform():
    """Four standard errors of 500 trials."""
    rng = np.random.default_rng(0)
    p = np.array([uniformity_p_value(rng.random(NUM)) for _ in range(500)])
    for level in (0.05, 0.2, 0.5):
        assert abs(np.mean(p <= level) - level) < 4.0 * np.sqrt(level * (1.0 - level) / 500)


@pytest.mark.parametrize("shape", [(1.0, 2.5), (2.5, 1.0), (0.4, 0.4), (5.0, 5.0)], ids=str)
def test_other_numbers_are_found_out(shape):
    assert uniformity_p_value(np.random.default_rng(0).beta(*shape, NUM)) < 1e-3


def test_outside_of_the_band_and_a_small_p_value_are_the_same():
    rng = np.random.default_rng(3)
    band, seen = uniformity_band(NUM, 0.9), set()
    for _ in range(200):
        numbers = rng.beta(1.0, 1.3, NUM)
        found = np.searchsorted(np.sort(numbers), band.points, side="right") / NUM
        outside = bool(np.any((found < band.lower) | (found > band.upper)))
        p = uniformity_p_value(numbers)
        if abs(p - 0.1) > 0.01:  # the level itself belongs to no side
            assert outside == (p < 0.1)
            seen.add(outside)
    assert seen == {True, False}


def test_the_band_is_that_of_arviz():
    """Simulated there with other numbers: to one count of 60."""
    band = uniformity_band(NUM, 0.95)
    if int(az.__version__.split(".")[0]) < 1:
        lower, upper = ecdf_confidence_band(
            NUM, band.points, band.points, 0.95, method="simulated", num_trials=4000,
            rvs=stats.uniform(0.0, 1.0).rvs, random_state=np.random.default_rng(0),
        )  # fmt: skip
    else:
        rng = np.random.default_rng(0)
        prob = ecdf_utils.simulate_confidence_bands(NUM, 1, band.points, 0.95, 4000, rng)
        lower, upper = ecdf_utils.get_pointwise_confidence_band(prob, NUM, band.points)
    assert np.abs(band.lower - lower).max() <= 1.01 / NUM
    assert np.abs(band.upper - upper).max() <= 1.01 / NUM


def test_numbers_that_are_none():
    for numbers in ([0.5, np.nan], [0.5, 1.1], [[0.5]]):
        with pytest.raises(ValueError, match="expected numbers in"):
            uniformity_p_value(numbers)
    assert np.isnan(uniformity_p_value([0.3]))
    with pytest.raises(ValueError, match="expected at least 2 numbers"):
        uniformity_band(1)
    with pytest.raises(ValueError, match="expected a probability"):
        uniformity_band(9, 1.0)


def made(num_scalars=2, unreliable=3):
    """Ranks of a right scalar and of wrong ones; the first fits are not to be believed."""
    rng = np.random.default_rng(5)
    effects = rng.beta(0.4, 0.4, (NUM, num_scalars))
    effects[:unreliable] = np.nan
    ranks = xr.Dataset(
        {
            "mu": ("simulation", np.r_[np.zeros(unreliable), rng.random(NUM - unreliable)]),
            "effect": (("simulation", "school"), effects),
        },
        coords={"school": [f"S{i}" for i in range(num_scalars)]},
    )
    verdicts = ["unreliable"] * unreliable + ["reliable"] * (NUM - unreliable)
    return Calibration(ranks, ranks, pd.DataFrame({"verdict": verdicts}), NUM)


def test_the_table_leaves_unreliable_fits_out_and_says_so():
    calibration = made()
    table = calibration.table
    assert list(table.index) == ["mu", "effect[S0]", "effect[S1]"]
    assert (table["num_ranks"] == NUM - 3).all()
    believed = calibration.ranks["mu"].to_numpy()[3:]
    assert table["p_value"]["mu"] == uniformity_p_value(believed) > 1e-3
    assert table["mean_rank"]["mu"] == pytest.approx(believed.mean())
    assert (table["p_value"][1:] < 1e-3).all() and (table["spread"][1:] > 1.2).all()
    assert calibration.p_value == pytest.approx(3.0 * table["p_value"].min())
    for text in (repr(calibration), calibration._repr_html_()):
        assert "3 &#x27;unreliable" in text or "3 'unreliable' fits left out" in text
        assert "57 reliable" in text


def test_the_picture_of_the_ranks(tmp_path):
    calibration = made()
    figure = calibration.plot()
    panels = [axes for axes in figure.axes if axes.axison]
    titles = [axes.get_title() for axes in panels]
    assert [title.split("  ")[0] for title in titles] == ["mu", "effect[S0]", "effect[S1]"]
    assert f"p = {calibration.table['p_value']['mu']:.2g}" in titles[0]
    assert "3 'unreliable' fits left out" in figure.get_suptitle()
    believed = np.sort(calibration.ranks["mu"].to_numpy()[3:])
    (curve,) = [line for line in panels[0].get_lines() if line.get_label() == "ranks"]
    x, y = curve.get_data()
    np.testing.assert_allclose(y, np.searchsorted(believed, x, side="right") / 57 - x)
    # One right scalar of three: its curve stays in the band, the others' do not.
    assert [axes.title.get_color() for axes in panels] == ["#08306b", "#b2182b", "#b2182b"]
    band = uniformity_band(57, 1.0 - 0.05 / 3.0)
    (area,) = panels[0].collections
    edges = area.get_paths()[0].vertices
    assert edges[:, 1].min() == pytest.approx((band.lower - band.points).min())
    figure.savefig(tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").stat().st_size > 10_000


def test_the_picture_shows_the_worst_of_many():
    calibration = made(num_scalars=50)
    figure = calibration.plot(max_scalars=4)
    assert len([axes for axes in figure.axes if axes.axison]) == 4
    assert "4 of 51 scalars" in figure.get_suptitle()
    worst = calibration.table["p_value"].nsmallest(4).index
    shown = {axes.get_title().split("  ")[0] for axes in figure.axes}
    assert shown - {""} == set(worst)
    assert "20 of 51 scalars" in repr(calibration)


def test_options_of_the_picture():
    calibration = made()
    with pytest.raises(ValueError, match="expected a probability"):
        calibration.plot(prob=0.0)
    with pytest.raises(ValueError, match="expected max_scalars >= 1"):
        calibration.plot(max_scalars=0)
    with pytest.raises(ValueError, match="expected at least two ranks"):
        made(unreliable=NUM).plot()
    assert np.isnan(made(unreliable=NUM).p_value)
