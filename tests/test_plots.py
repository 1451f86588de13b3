"""The picture of a result: what it says, panel by panel; not its pixels."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from numpyro_onestep import importance as imp
from numpyro_onestep import inference_data as ind
from numpyro_onestep.plots import plot_posterior_and_weights

CHAINS, DRAWS = 4, 100


def make(posterior, log_weight=None, sign=None, **attrs):
    rng = np.random.default_rng(0)
    num = CHAINS * DRAWS
    log_w = 0.4 * rng.standard_normal(num) if log_weight is None else log_weight
    smoothed, k = ind.psis(log_w)
    evidence = imp.evidence(log_w, sign, pareto_k=k)
    return ind.build(
        posterior=posterior,
        sample_stats={
            "log_evidence": evidence.log_evidence,
            "log_evidence_se": evidence.se,
            "pareto_k": k,
        },
        importance={},
        importance_weights={
            "log_weight": log_w,
            "psis_log_weight": smoothed,
            "sign": np.ones(num) if sign is None else sign,
        },
        training={},
        names=ind.merge_names({"theta": ["school"]}),
        attrs={"verdict": "reliable", "verdict_reasons": [], **attrs},
    )


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal((CHAINS, DRAWS, *shape))


def scalar_axes(figure):
    """The axes of the scalars: all but the weights (last) and the reasons (axis off)."""
    return [axes for axes in figure.axes[:-1] if axes.axison]


def titles(figure):
    return [axes.get_title() for axes in scalar_axes(figure)]


@pytest.fixture(scope="module")
def schools():
    return make({"mu": normal(), "tau": np.exp(normal()), "theta": normal(8)})


def test_one_panel_per_scalar_and_one_for_the_weights(schools, tmp_path):
    figure = plot_posterior_and_weights(schools)
    assert isinstance(figure, Figure)
    assert titles(figure) == ["mu", "tau", *(f"theta[{i}]" for i in range(8))]
    assert len(figure.axes) == 11
    assert figure.get_suptitle().startswith("verdict: reliable  ·  log evidence ")
    figure.savefig(tmp_path / "result.png")
    assert (tmp_path / "result.png").stat().st_size > 10_000


def test_mean_and_interval_are_marked(schools):
    mu = ind.group_dataset(schools, "posterior")["mu"].to_numpy().ravel()
    axes = plot_posterior_and_weights(schools, ["mu"], prob=0.8).axes[0]
    lines = {line.get_label(): line.get_xdata() for line in axes.get_lines()}
    np.testing.assert_allclose(lines["mean"], mu.mean())
    np.testing.assert_allclose(lines["interval"], np.quantile(mu, [0.1, 0.9]))
    numbers = axes.texts[0].get_text()
    assert numbers == f"{mu.mean():.2f}  [{lines['interval'][0]:.2f}, {lines['interval'][1]:.2f}]"


def test_weight_panel_shows_weights_fit_ess_and_k(schools):
    axes = plot_posterior_and_weights(schools).axes[-1]
    log_w = ind.group_dataset(schools, "importance")["log_weight"].to_numpy()
    size, k = imp.ess(log_w), ind.psis(log_w)[1]
    assert f"ESS {size.count:.0f} of 400" in axes.get_title()
    assert f"k-hat {k:.2f} (limit 0.62)" in axes.get_title()
    assert axes.get_xscale() == axes.get_yscale() == "log"
    lines = {line.get_label(): line for line in axes.get_lines()}
    weights = lines["weights"]
    np.testing.assert_allclose(weights.get_xdata()[[0, -1]], [1 / 400, 1.0])
    largest = np.exp(log_w.max()) / np.exp(log_w).mean()
    np.testing.assert_allclose(weights.get_ydata()[0], largest)
    fit = lines[f"Pareto fit of the largest 60 (k-hat {k:.2f})"]
    assert fit.get_xdata().size == 60 and np.all(np.diff(fit.get_ydata()) <= 0)
    # The fit lies on the weights where the tail begins.
    start = np.sort(np.exp(log_w))[-60] / np.exp(log_w).mean()
    np.testing.assert_allclose(fit.get_ydata()[-1], start, rtol=0.05)


def test_verdict_and_reasons_are_told():
    reasons = ["k-hat is above its limit. " * 12, "second", "third", "fourth", "fifth"]
    result = make({"mu": normal()}, verdict="unreliable", verdict_reasons=reasons)
    figure = plot_posterior_and_weights(result)
    assert figure.get_suptitle().startswith("verdict: unreliable")
    text = figure.axes[0].texts[0].get_text()
    assert text.startswith("– k-hat is above") and "– third" in text and "– and 2 more" in text
    assert "fourth" not in text
    assert max(map(len, text.splitlines())) <= 112
    one = make({"mu": normal()}, verdict="usable_with_weights", verdict_reasons=["only one"])
    figure = plot_posterior_and_weights(one)
    assert figure.get_suptitle().startswith("verdict: usable with weights")
    assert figure.axes[0].texts[0].get_text() == "– only one"


def test_scalars_beyond_the_cap_are_counted_and_small_sites_come_first():
    result = make({"field": normal(200), "mu": normal(), "beta": normal(3)})
    figure = plot_posterior_and_weights(result)
    assert len(titles(figure)) == 60
    assert titles(figure)[-4:] == ["mu", "beta[0]", "beta[1]", "beta[2]"]
    assert "showing 60 of 204 scalars" in figure.get_supxlabel()
    assert "showing" not in plot_posterior_and_weights(result, ["beta"]).get_supxlabel()
    assert titles(plot_posterior_and_weights(result, max_scalars=2)) == ["mu", "beta[0]"]


@pytest.mark.parametrize("count", [1, 2, 5, 16, 40])
def test_panels_do_not_overlap(count):
    figure = plot_posterior_and_weights(make({"x": normal(count)}))
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert all(box.width > 60 and box.height > 40 for box in boxes)
    overlaps = [a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert not any(overlaps)


def test_unusual_scalars():
    broken = normal()
    broken[0, :3] = np.nan
    posterior = {
        "constant": np.full((CHAINS, DRAWS), 1.0),
        "flag": normal() > 0,
        "count": np.random.default_rng(0).poisson(3, (CHAINS, DRAWS)),
        "broken": broken,
        "lost": np.full((CHAINS, DRAWS), np.nan),
        "spike": np.where(np.arange(400).reshape(4, 100) == 7, 5.0, 0.0),
        "a_site_with_a_very_long_name_indeed": normal().astype(np.float32),
    }
    figure = plot_posterior_and_weights(make(posterior))
    named = dict(zip(titles(figure), scalar_axes(figure), strict=True))
    assert "constant" not in named and "1 constant scalars left out" in figure.get_supxlabel()
    assert named["broken"].texts[0].get_text().endswith("3 not finite")
    assert named["lost"].texts[0].get_text() == "no finite draw"
    edges = named["count"].patches[0].get_data().edges
    np.testing.assert_allclose(edges % 1, 0.5)
    assert named["flag"].patches[0].get_data().values.size == 2
    assert max(map(len, named)) <= 24


def test_bad_weights_are_called_out():
    log_w = np.random.default_rng(0).standard_normal(400)
    log_w[:4], log_w[4:8] = np.nan, -np.inf
    sign = np.ones(400)
    sign[10:30] = -1
    axes = plot_posterior_and_weights(make({"mu": normal()}, log_w, sign)).axes[-1]
    assert "1 % not finite" in axes.get_title() and "5 % folded" in axes.get_title()
    assert axes.title.get_color() == "#b2182b"
    empty = plot_posterior_and_weights(make({"mu": normal()}, np.full(400, np.nan)))
    assert empty.axes[-1].texts[0].get_text() == "no positive finite weight"
    assert "log evidence not available" in empty.get_suptitle()
    few = plot_posterior_and_weights(make({"mu": normal()}, np.r_[0.0, np.full(399, -np.inf)]))
    assert "ESS 1 of 400" in few.axes[-1].get_title()


def test_one_tiny_weight_does_not_set_the_scale():
    log_w = 0.1 * np.random.default_rng(0).standard_normal(400)
    log_w[3] = -9.0
    axes = plot_posterior_and_weights(make({"mu": normal()}, log_w)).axes[-1]
    heights = {line.get_label(): line for line in axes.get_lines()}["weights"].get_ydata()
    # It is at the lower end, not below: a third of what the others reach.
    expected = np.exp(np.sort(log_w)[1]) / np.mean(np.exp(log_w)) / 3.0
    np.testing.assert_allclose(heights[-1], expected)
    assert axes.get_ylim()[0] > 0.1


def test_a_notebook_shows_the_figure_without_pyplot(schools):
    assert plot_posterior_and_weights(schools)._repr_png_().startswith(b"\x89PNG")


def test_reads_a_netcdf_file(schools, tmp_path):
    schools.to_netcdf(str(tmp_path / "result.nc"))
    figure = plot_posterior_and_weights(ind.from_netcdf(tmp_path / "result.nc"))
    assert titles(figure) == titles(plot_posterior_and_weights(schools))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"var_names": ["nu"]}, "expected variables out of"),
        ({"prob": 1.0}, "expected a probability"),
        ({"max_scalars": 0}, "expected max_scalars >= 1"),
    ],
)
def test_bad_options_say_what_was_expected(schools, options, message):
    with pytest.raises(ValueError, match=message):
        plot_posterior_and_weights(schools, **options)
