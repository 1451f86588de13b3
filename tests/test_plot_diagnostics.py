"""The picture of what the verdict looks at: its numbers and shapes; not its pixels."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from numpyro_onestep import importance as imp
from numpyro_onestep import inference_data as ind
from numpyro_onestep.plots import plot_diagnostics

NUM = 400
FEW = {
    "few_step_log_evidence": 0.25,
    "few_step_log_evidence_se": 0.02,
    "few_step_pareto_k": 0.31,
    "few_step_ess_fraction": 0.62,
}


def make(log_w, moved, sign=None, stats=None, **attrs):
    smoothed, k = ind.psis(log_w)
    sign = np.ones(NUM) if sign is None else sign
    found = imp.evidence(log_w, sign, pareto_k=k)
    return ind.build(
        posterior={"mu": np.zeros((4, 100))},
        sample_stats={
            "log_evidence": found.log_evidence,
            "log_evidence_se": found.se,
            "pareto_k": k,
            "elbo": imp.elbo(log_w),
            "eubo": float(np.mean(moved)) if len(moved) else np.nan,
            **FEW,
            **(stats or {}),
        },
        importance={"moved_log_weight": np.zeros(NUM)},
        importance_weights={"log_weight": log_w, "psis_log_weight": smoothed, "sign": sign},
        training={},
        moved_log_weight=moved,
        attrs={"verdict": "reliable", "num_steps": 1, **attrs},
    )


def draws():
    return 0.5 * np.random.default_rng(0).standard_normal(NUM) - 3.0


def resampled(log_w, num):
    rng = np.random.default_rng(1)
    return rng.choice(log_w, num, p=np.exp(log_w) / np.exp(log_w).sum())


def panels(result):
    figure = plot_diagnostics(result)
    assert isinstance(figure, Figure) and figure._repr_png_().startswith(b"\x89PNG")
    return figure.axes


def stairs(axes):
    """Heights by label (without a bracket), and the edges that all share."""
    data = {p.get_label().split(" (")[0]: p.get_data() for p in axes.patches}
    return {name: d.values for name, d in data.items()}, axes.patches[0].get_data().edges


def test_moved_points_that_follow_the_draws(tmp_path):
    log_w = draws()
    result = make(log_w, resampled(log_w, 200))
    result.to_netcdf(str(tmp_path / "result.nc"))
    for source in (result, ind.from_netcdf(tmp_path / "result.nc")):
        weights, coverage, _ = panels(source)
        size, k = imp.ess(log_w), ind.psis(log_w)[1]
        assert f"ESS {size.count:.0f} of 400" in weights.get_title()
        assert f"k-hat {k:.2f}" in weights.get_title()
        heights, edges = stairs(coverage)
        for name in ("draws", "draws, by weight", "moved points"):
            np.testing.assert_allclose(heights[name].sum(), 1.0)
        # The axis is in nats above the mean weight, the mean by weight to the right of the mean.
        middle = 0.5 * (edges[1:] + edges[:-1])
        width = edges[1] - edges[0]
        relative = log_w - np.log(np.mean(np.exp(log_w)))
        assert abs(heights["draws"] @ middle - relative.mean()) <= 0.5 * width
        normalised = np.exp(relative) / NUM
        assert abs(heights["draws, by weight"] @ middle - normalised @ relative) <= 0.5 * width
        assert "moved, beyond all draws" not in heights
        assert coverage.get_title().startswith("coverage: 0 % of 200 moved points beyond all draws")
        assert f"({100 * normalised.max():.2g} % expected)" in coverage.get_title()
        labels = [text.get_text() for text in coverage.get_legend().get_texts()]
        assert f"draws (ELBO {log_w.mean():.3f})" in labels


def test_points_out_of_reach_are_in_the_colour_of_an_alarm():
    """A fifth of the moved points at weights that no draw has, one of them out of all bounds."""
    log_w = draws()
    moved = resampled(log_w, 200)
    moved[:39], moved[39] = log_w.max() + 2.0, np.inf
    moved[40:50] = np.nan
    axes = panels(make(log_w, moved, verdict="unreliable"))[1]
    heights, edges = stairs(axes)
    np.testing.assert_allclose(heights["moved, beyond all draws"].sum(), 0.2)
    # The infinite weight is in the last bin, 15 nats from the mean weight and alone there.
    np.testing.assert_allclose(heights["moved, beyond all draws"][-1], 1 / 200)
    assert 15.0 < edges[-1] < 17.0
    np.testing.assert_allclose(heights["moved points"].sum(), 0.95)
    assert "20 % of 200 moved points" in axes.get_title()
    assert "5 % of unknown weight" in axes.get_title()
    (alarm,) = [p for p in axes.patches if p.get_label() == "moved, beyond all draws"]
    assert alarm.get_facecolor() == pytest.approx((0.698, 0.094, 0.169, 1.0), abs=2e-3)


def test_equal_weights_are_no_picture_of_rounding_errors():
    rounding = 1e-7 * np.random.default_rng(0).standard_normal(NUM)
    heights, edges = stairs(panels(make(rounding, rounding[:50]))[1])
    assert edges[-1] - edges[0] >= 0.2
    assert np.max(heights["draws"]) > 0.5  # one bin or two, not fifty


def test_steps_are_compared():
    log_w = draws()
    axes = panels(make(log_w, log_w[:50]))[2]
    own = imp.evidence(log_w, pareto_k=ind.psis(log_w)[1])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1 step", "2 steps"]
    assert f"{0.25 - own.log_evidence:+.3f}" in axes.get_title()
    points = [container.lines[0].get_xdata()[0] for container in axes.containers]
    np.testing.assert_allclose(points, [own.log_evidence, 0.25])
    (bar,) = axes.containers[1].lines[2][0].get_segments()
    np.testing.assert_allclose(bar[:, 0], [0.21, 0.29])
    assert [t.get_text() for t in axes.texts][1] == "62 % effective, k-hat 0.31"


def test_a_rescue_has_a_row_and_the_evidence_of_the_draws_stays():
    log_w = draws()
    stats = {"log_evidence": -2.5, "log_evidence_se": 0.01}
    result = make(log_w, log_w[:50], stats=stats, fallback="nuts", verdict="rescued", num_steps=4)
    axes = panels(result)[2]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["4 steps", "8 steps", "NUTS"]
    own = imp.evidence(log_w, pareto_k=ind.psis(log_w)[1]).log_evidence
    points = [container.lines[0].get_xdata()[0] for container in axes.containers]
    np.testing.assert_allclose(points, [own, 0.25, -2.5])


def test_without_moved_points_weights_or_evidence():
    nothing = {"log_evidence": np.nan, "log_evidence_se": np.nan, "few_step_log_evidence": np.nan}
    log_w = draws()
    _, coverage, steps = panels(make(log_w, [], stats=nothing))
    assert coverage.get_title() == "coverage: no moved points" and not coverage.patches
    assert "not available" in steps.get_title() and not steps.containers
    _, coverage, _ = panels(make(np.full(NUM, -np.inf), [0.0, 0.0]))
    assert coverage.get_title() == "coverage: no moved points"
    with pytest.raises(ValueError, match="expected the statistics"):
        plot_diagnostics(
            ind.build(
                posterior={"mu": np.zeros((4, 100))},
                sample_stats={"pareto_k": 0.1},
                importance={},
                importance_weights={"log_weight": log_w},
                training={},
            )
        )
