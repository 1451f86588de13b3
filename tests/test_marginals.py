"""The picture of marginal posteriors from several sources: what it says, not its pixels."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from numpyro_onestep import inference_data as ind
from numpyro_onestep.plots import plot_marginals

NUM = 2000


def draws(seed, sd=1.0):
    rng = np.random.default_rng(seed)
    return {"mu": sd * rng.normal(size=NUM), "theta": rng.normal(size=(NUM, 2))}


def weighted(seed):
    """Too wide by half, with the weights that make up for it."""
    sites = draws(seed)
    sites["mu"] = 1.5 * sites["mu"]
    log_weight = stats.norm.logpdf(sites["mu"]) - stats.norm(0.0, 1.5).logpdf(sites["mu"])
    return sites, log_weight


@pytest.fixture(scope="module")
def result():
    sites = {name: value.reshape(4, NUM // 4, *value.shape[1:]) for name, value in draws(0).items()}
    names = ind.merge_names({"theta": ["school"]}, {"school": ["Choate", "Phillips"]})
    return ind.wrap_groups({"posterior": ind.make_dataset(sites, ind.SAMPLE_DIMS, names)}, {})


def panels(figure):
    return [axes for axes in figure.axes if axes.axison]


def distance(axes):
    return float(axes.get_title().split()[-1])


def test_every_kind_of_source(result, tmp_path):
    sites, log_weight = weighted(1)
    few = SimpleNamespace(samples=sites, log_weights=log_weight, sign=np.ones(NUM))
    sources = {"one step": result, "4 steps": few, "pair": weighted(2), "NUTS": draws(3)}
    figure = plot_marginals(sources)
    titles = [axes.get_title().split("  ")[0] for axes in panels(figure)]
    assert titles == ["mu", "theta[Choate]", "theta[Phillips]"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(sources)
    # The same distribution: the two-sample statistic stays below 0.07 but once in 1000 seeds, with
    # about 1500 effective draws.
    assert all(distance(axes) < 0.07 for axes in panels(figure))
    for axes in panels(figure):
        assert [patch.get_label() for patch in axes.patches] == list(sources)
        for patch in axes.patches:
            density, edges, _ = patch.get_data()
            assert 0.95 < np.sum(density * np.diff(edges)) <= 1.0 + 1e-9
    figure.savefig(tmp_path / "marginals.png")
    assert (tmp_path / "marginals.png").stat().st_size > 10_000


def test_a_difference_shows(result):
    narrow = draws(1, sd=0.5)
    figure = plot_marginals({"one step": result, "narrow": narrow})
    by_name = {axes.get_title().split("  ")[0]: axes for axes in panels(figure)}
    mu = np.asarray(result["posterior"]["mu"]).ravel()
    expected = stats.ks_2samp(mu, narrow["mu"]).statistic
    assert distance(by_name["mu"]) == pytest.approx(expected, abs=1e-3)
    assert distance(by_name["mu"]) > 0.1 > distance(by_name["theta[Choate]"])
    heights = [patch.get_data().values.max() for patch in by_name["mu"].patches]
    assert heights[1] > 1.5 * heights[0]
    # The largest distance is shown where there is room for one.
    alone = plot_marginals({"one step": result, "narrow": narrow}, max_scalars=1)
    assert [axes.get_title().split()[0] for axes in panels(alone)] == ["mu"]
    assert alone.get_supxlabel() == "showing 1 of 3 scalars"


def test_constants_and_other_sites_are_left_out():
    one = {"a/mu": np.arange(10.0), "constant": np.ones(10), "extra": np.arange(10)}
    two = {"a/mu": np.arange(10.0), "constant": np.ones(10)}
    figure = plot_marginals({"one": one, "two": two})
    assert [axes.get_title() for axes in panels(figure)] == ["a.mu  max |dF| 0.000"]


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ({"one": {"x": np.zeros(3)}}, {}, "expected 2 to 6 sources; got 1"),
        ({"one": {"x": np.arange(3)}, "two": 3}, {}, "expected 'two' as a result.*got int"),
        (
            {"one": {"x": np.arange(3)}, "two": {"y": np.arange(3)}},
            {},
            "expected sites that all sources have",
        ),
        (
            {"one": {"x": np.arange(3)}, "two": {"x": np.ones((3, 2))}},
            {},
            "expected site 'x' of one size",
        ),
        (
            {"one": {"x": np.arange(3)}, "two": ({"x": np.arange(3)}, np.zeros(2))},
            {},
            "expected draws of 'two' with one number of them",
        ),
        (
            {"one": {"x": np.arange(3)}, "two": ({"x": np.arange(3)}, np.full(3, -np.inf))},
            {},
            "expected draws of 'two' with positive weights",
        ),
        (
            {"one": {"x": np.arange(3)}, "two": {"x": np.arange(3)}},
            {"var_names": ["z"]},
            r"out of \['x'\]; got \['z'\]",
        ),
        (
            {"one": {"x": np.arange(3)}, "two": {"x": np.arange(3)}},
            {"max_scalars": 0},
            "expected max_scalars >= 1",
        ),
        ({"one": {"x": np.ones(3)}, "two": {"x": np.ones(3)}}, {}, "got only constants"),
    ],
)
def test_bad_input_says_what_was_expected(sources, options, message):
    with pytest.raises(ValueError, match=message):
        plot_marginals(sources, **options)
