"""Bayes factors, model probabilities and averaged predictions of results that are made up.

`tests/inference/test_comparison_truths.py` compares real fits.
"""

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from numpyro_onestep import EvidenceComparison, compare_evidence
from numpyro_onestep import inference_data as ind
from numpyro_onestep.comparison.table import model_probabilities
from numpyro_onestep.plots import plot_evidence

DRAWS = (2, 50)
Y = np.array([1.0, 2.0, 4.0])


def make(log_evidence, se=0.01, *, y=Y, digest="same", level=0.0, log_weight=(0.0,) * 100, **attrs):
    """A result with this evidence, whose predictive draws are all `level`."""
    return ind.build(
        posterior={"mu": np.zeros(DRAWS)},
        sample_stats={"log_evidence": log_evidence, "log_evidence_se": se},
        importance={},
        importance_weights={
            "log_weight": np.array(log_weight),
            "psis_log_weight": np.array(log_weight),
        },
        training={},
        attrs={"verdict": "reliable", "verdict_reasons": [], "data_digest": digest, **attrs},
        observed_data={"y": y},
        posterior_predictive={"y": np.full((*DRAWS, 3), level) + np.arange(3.0)},
    )


@pytest.fixture(scope="module")
def three():
    return {
        "weak": make(-104.0, 0.3, level=100.0),
        "best": make(-100.0, 0.1, level=200.0),
        "close": make(-101.0, 0.2, level=300.0),
    }


def test_the_table(three):
    comparison = compare_evidence(three)
    table = comparison.table
    assert isinstance(comparison, EvidenceComparison)
    assert list(table.index) == ["best", "close", "weak"] and comparison.best == "best"
    np.testing.assert_allclose(table["log_bayes_factor"], [0.0, -1.0, -4.0])
    np.testing.assert_allclose(table["log_bayes_factor_se"], [0.0, np.sqrt(0.05), np.sqrt(0.1)])
    weight = np.exp([0.0, -1.0, -4.0])
    np.testing.assert_allclose(table["probability"], weight / weight.sum())
    np.testing.assert_allclose(table["prior"], 1.0 / 3.0)


def test_prior_weights(three):
    table = compare_evidence(three, {"weak": 6.0, "best": 1.0, "close": 3.0}).table
    np.testing.assert_allclose(table["prior"], [0.1, 0.3, 0.6])
    weight = np.array([0.1, 0.3, 0.6]) * np.exp([0.0, -1.0, -4.0])
    np.testing.assert_allclose(table["probability"], weight / weight.sum())
    # Bayes factors know no prior weights of models.
    np.testing.assert_allclose(table["log_bayes_factor"], [0.0, -1.0, -4.0])


def test_errors_of_probabilities_are_those_of_a_simulation():
    log_evidence, se = np.array([-3.0, -3.5, -6.0, -3.2]), np.array([0.05, 0.02, 0.1, 0.04])
    prior = np.array([0.2, 0.3, 0.4, 0.1])
    probability, error = model_probabilities(log_evidence, se, prior)
    noise = np.random.default_rng(0).standard_normal((200_000, 4))
    simulated = prior * np.exp(log_evidence + se * noise)
    simulated /= simulated.sum(1, keepdims=True)
    # Simulation error 0.2 %, the rest is what the delta method leaves out.
    np.testing.assert_allclose(error, simulated.std(0), rtol=0.02)
    np.testing.assert_allclose(probability, simulated.mean(0), rtol=0.01)


@pytest.mark.parametrize("shift", [0.0, -1e6, 1e6])
def test_evidences_of_any_size(shift):
    """Only differences count: e^-1000000 is no number."""
    table = compare_evidence(
        {"a": make(shift - 2.0), "b": make(shift - 0.5), "c": make(shift - 5000.0)}
    ).table
    np.testing.assert_allclose(table["log_bayes_factor"], [0.0, -1.5, -4999.5])
    odds = np.exp(1.5)
    np.testing.assert_allclose(table["probability"], [odds / (1 + odds), 1 / (1 + odds), 0.0])
    assert np.isfinite(table["probability_se"]).all()
    certain = compare_evidence({"a": make(shift), "b": make(shift - 60.0)}).table
    # Neither 0 nor rounding noise: the error of a near-certain model is that of its rival.
    np.testing.assert_allclose(certain["probability_se"], np.exp(-60.0) * 0.01 * 2**0.5, rtol=1e-3)


REFUSED = {
    "one model": ({"a": make(-1.0)}, "at least two models"),
    "none": ({}, "at least two models"),
    "a list": ([make(-1.0), make(-2.0)], "expected a dictionary"),
    "other data": (
        {"a": make(-1.0), "b": make(-2.0, digest="other", y=np.ones(4))},
        r"same observed data; model 'b' has other data than 'a'.*\(4,\).*\(3,\)",
    ),
    "unreliable": (
        {"a": make(-1.0, verdict="unreliable", verdict_reasons=["Folds."]), "b": make(-1.0)},
        "model 'a': .*got 'unreliable'. Folds.",
    ),
    "refused evidence": (
        {"a": make(-1.0), "b": make(np.nan, np.nan, evidence_note="Site 'm' is improper.")},
        "model 'b': expected a finite log evidence.*Site 'm' is improper",
    ),
    "infinite evidence": ({"a": make(-np.inf), "b": make(-1.0)}, "model 'a': expected a finite"),
    "an unknown weight": (
        {"a": make(np.nan, np.inf, log_weight=[0.0, np.inf, -np.inf]), "b": make(-1.0)},
        r"model 'a': .*got nan \+- inf. At 1 of its 3 draws the log weight is NaN or \+inf",
    ),
    "no weight": (
        {"a": make(-np.inf, np.inf, log_weight=[-np.inf] * 3), "b": make(-1.0)},
        "model 'a': .*got -inf .*All of its weights are zero",
    ),
    "infinite error": ({"a": make(-1.0, np.inf), "b": make(-1.0)}, "model 'a': expected a finite"),
    "a number": ({"a": make(-1.0), "b": -3.0}, "model 'b': expected a result of `run`.*float"),
    "twice one name": ({1: make(-1.0), "1": make(-1.0)}, "names that differ"),
}


@pytest.mark.parametrize(("models", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(models, message):
    with pytest.raises(ValueError, match=message):
        compare_evidence(models)


def test_results_of_other_libraries_are_refused():
    foreign = make(-1.0)
    foreign.attrs["inference_library"] = "numpyro"
    with pytest.raises(ValueError, match="model 'nuts': expected a result of numpyro_onestep.*'nu"):
        compare_evidence({"a": make(-1.0), "nuts": foreign})
    del foreign.attrs["inference_library"], foreign["posterior"].attrs["inference_library"]
    with pytest.raises(ValueError, match="model 'nuts': .*'an unnamed library'"):
        compare_evidence({"a": make(-1.0), "nuts": foreign})


def test_an_inference_that_has_not_run_is_refused():
    from numpyro_onestep import OneStepInference

    with pytest.raises(ValueError, match="model 'new': expected a finished run"):
        compare_evidence({"a": make(-1.0), "new": OneStepInference(lambda: None)})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1.0}, "prior_weights for the models"),
        ({"a": 1.0, "b": 0.0}, "expected positive prior_weights"),
        ({"a": 1.0, "b": np.nan}, "expected positive prior_weights"),
        ({"a": 1.0, "b": "much"}, "expected positive prior_weights"),
    ],
)
def test_bad_prior_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        compare_evidence({"a": make(-1.0), "b": make(-2.0)}, weights)


def test_notes_and_text():
    reasons = ["The weights have a rather heavy tail."]
    comparison = compare_evidence(
        {
            "plain": make(-1.0),
            "factor": make(-2.0, evidence_note="The factor 'f' is part of the evidence."),
            "tails": make(-3.0, verdict="usable_with_weights", verdict_reasons=reasons),
        }
    )
    assert set(comparison.notes) == {"factor", "tails"}
    text, page = repr(comparison), comparison._repr_html_()
    for shown in (" ".join(text.split()), page):
        for word in ("plain", "log BF", "rather heavy tail", "usable_with_weights"):
            assert word in shown
    assert "0.6652" in text and "-0.000" not in text
    assert "factor: The factor &#x27;f&#x27; is part" in page


def test_after_a_netcdf_round_trip(three, tmp_path):
    back = {}
    for name, result in three.items():
        result.to_netcdf(str(tmp_path / f"{name}.nc"))
        back[name] = ind.from_netcdf(tmp_path / f"{name}.nc")
    assert repr(compare_evidence(back)) == repr(compare_evidence(three))


def test_the_picture(three, tmp_path):
    comparison = compare_evidence(three, {"weak": 1.0, "best": 1.0, "close": 2.0})
    figure = comparison.plot()
    assert isinstance(figure, Figure)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["best", "close", "weak"]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the best on top
    points, _, (bars,) = left.containers[0]
    np.testing.assert_allclose(points.get_xdata(), [0.0, -1.0, -4.0])
    ends = np.array([segment[:, 0] for segment in bars.get_segments()])
    np.testing.assert_allclose(np.diff(ends).ravel(), 4.0 * np.sqrt([0.0, 0.05, 0.1]))
    widths = [bar.get_width() for bar in right.patches]
    np.testing.assert_allclose(widths, comparison.table["probability"])
    ticks = {line.get_label(): line.get_xdata() for line in right.get_lines()}
    np.testing.assert_allclose(ticks["prior"], [0.25, 0.5, 0.25])
    assert left.get_title(loc="left") == "best: log evidence -100.000 ± 0.1"
    figure.draw_without_rendering()
    labels = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert not labels[0].overlaps(labels[1])
    assert left.get_xscale() == "linear"
    figure.savefig(tmp_path / "evidence.png")
    far = compare_evidence({"a": make(-1e6), "b": make(-1e6 - 3e4), "c": make(-1e6 - 1.0)})
    assert plot_evidence(far.table).axes[0].get_xscale() == "symlog"


def test_averaged_predictions_come_in_proportion(three):
    comparison = compare_evidence(three)
    averaged = comparison.average_predictions(jax.random.key(0), num_samples=1000)
    group = ind.group_dataset(averaged, "posterior_predictive")
    assert group["y"].dims == ("chain", "draw", "y_dim_0") and group["y"].shape == (1, 1000, 3)
    origin = group["model"].to_numpy()
    for name, probability in comparison.table["probability"].items():
        assert abs((origin == name).sum() - 1000 * probability) <= 1.0
    level = {"weak": 100.0, "best": 200.0, "close": 300.0}
    np.testing.assert_allclose(group["y"][0, :, 1], [level[name] + 1.0 for name in origin])
    observed = ind.group_dataset(averaged, "observed_data")
    np.testing.assert_allclose(observed["y"], Y)
    # As many draws as each model has, unless told otherwise; the key decides which.
    again = comparison.average_predictions(jax.random.PRNGKey(0))
    assert ind.group_dataset(again, "posterior_predictive").sizes["draw"] == 100


def test_averaging_draws_that_are_given():
    comparison = compare_evidence({"a": make(-1.0), "b": make(-1.0)})
    given = {
        "a": {"y": np.arange(40.0).reshape(20, 2), "only_a": np.zeros(20)},
        "b": {"y": 100.0 + np.arange(20.0).reshape(10, 2)},
    }
    averaged = comparison.average_predictions(jax.random.key(1), given, num_samples=60)
    group = ind.group_dataset(averaged, "predictions")
    assert set(group.data_vars) == {"y"}
    values, origin = group["y"][0].to_numpy(), group["model"].to_numpy()
    assert (origin == "a").sum() == 30 and np.all((values[:, 0] >= 100.0) == (origin == "b"))
    # 30 out of 10 draws: every one of them three times.
    _, counts = np.unique(values[origin == "b", 0], return_counts=True)
    assert counts.tolist() == [3] * 10
    _, counts = np.unique(values[origin == "a", 0], return_counts=True)
    assert sorted(set(counts.tolist())) == [1, 2] and len(counts) == 20
    few = comparison.average_predictions(jax.random.key(1), given)
    assert ind.group_dataset(few, "predictions").sizes["draw"] == 10


@pytest.mark.parametrize(
    ("predictions", "num", "message"),
    [
        ("prior", None, "model '.': expected a group 'prior'"),
        ({"a": {"y": np.zeros(3)}}, None, "model 'b': expected its predictions"),
        ({"a": {"y": np.zeros(3)}, "b": {"x": np.zeros(3)}}, None, "site that all models share"),
        ({"a": {"y": np.zeros(3)}, "b": {"y": np.zeros((3, 2))}}, None, "one shape of site 'y'"),
        ({"a": {"y": np.zeros(3)}, "b": {"y": 1.0}}, None, "model 'b': .*shape"),
        ("posterior_predictive", 0, "expected num_samples"),
    ],
)
def test_predictions_that_do_not_fit(predictions, num, message):
    comparison = compare_evidence({"a": make(-1.0), "b": make(-1.0)})
    with pytest.raises(ValueError, match=message):
        comparison.average_predictions(jax.random.key(0), predictions, num_samples=num)


def conjugate_log_evidence(x, y):
    """Of y ~ N(x w, 1), w ~ N(0, I)."""
    return stats.multivariate_normal(np.zeros(len(y)), np.eye(len(y)) + x @ x.T).logpdf(y)


def test_probabilities_are_calibrated():
    """Among data sets that a model is given probability p for, it made the share p.

    Models and data are drawn from the prior, evidences carry noise as large as their errors. Sums
    of (made - p) are normal with variance sum p (1 - p); four deviations in three tests fail by
    chance once in 5000 seeds, and the seed is fixed.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3))
    probability, made = [], []
    for _ in range(1500):
        columns = 1 + rng.integers(3)
        y = x[:, :columns] @ rng.normal(size=columns) + rng.normal(size=12)
        truth = np.array([conjugate_log_evidence(x[:, :k], y) for k in (1, 2, 3)])
        error = np.full(3, 0.05)
        found, _ = model_probabilities(truth + error * rng.normal(size=3), error, np.ones(3) / 3)
        probability.extend(found)
        made.extend(np.arange(1, 4) == columns)
    probability, made = np.array(probability), np.array(made)
    for low, high in ((0.0, 0.1), (0.1, 0.6), (0.6, 1.0)):
        chosen = (probability >= low) & (probability < high)
        p = probability[chosen]
        assert chosen.sum() > 100
        assert abs((made[chosen] - p).sum()) < 4.0 * np.sqrt((p * (1.0 - p)).sum())
