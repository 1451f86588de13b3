"""The result groups on the installed ArviZ line; CI runs this file on both lines."""

import warnings

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from numpyro_onestep import importance as imp
from numpyro_onestep import inference_data as ind

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

SCHOOLS = ["Choate", "Deerfield", "Phillips"]


def groups(rng=None, chains=4, draws=50, proposals=200):
    """All groups of a small result: scalars, a vector with a plate, a matrix, a bool site."""
    rng = rng or np.random.default_rng(0)
    sites = {"mu": (), "theta": (3,), "cov": (2, 2)}

    def draw(*leading):
        values = {k: rng.standard_normal(leading + s).astype("f4") for k, s in sites.items()}
        return {**values, "is_large": values["mu"] > 0, "count": rng.integers(0, 9, leading)}

    log_w = rng.standard_normal(proposals)
    return {
        "posterior": draw(chains, draws),
        "sample_stats": {
            "lp": rng.standard_normal((chains, draws)),
            "log_q": rng.standard_normal((chains, draws)),
            "acceptance_rate": rng.random((chains, draws)),
            "log_evidence": np.float32(-31.25),
            "log_evidence_se": 0.01,
            "pareto_k": 0.3,
            "ess_importance": 150,
        },
        "importance": draw(proposals),
        "importance_weights": {
            "log_weight": log_w,
            "psis_log_weight": ind.psis(log_w)[0],
            "log_det": rng.standard_normal(proposals),
            "sign": np.ones(proposals, dtype=int),
        },
        "training": {
            "loss": ("training_step", rng.random(30)),
            "round_seconds": (["training_round"], rng.random(2)),
            "stage": np.array(["fit", "polish"]),
            "seconds_train": 12.5,
            "num_gradients": 700_000,
            "stopped_early": False,
        },
        "log_likelihood": {
            "y": rng.standard_normal((chains, draws, 3)),
            "penalty": np.zeros((4, 50)),
        },
        "observed_data": {"y": rng.standard_normal(3), "penalty": np.zeros((0,))},
        "constant_data": {"sigma": np.array([15.0, 10.0, 16.0])},
    }


NAMES = ind.merge_names(
    {"theta": ["J"], "y": ["J"], "sigma": ["J"]},
    {},
    {"theta": ["school"], "y": ["school"], "sigma": ["school"], "cov": ["row", None]},
    {"school": SCHOOLS},
)
ATTRS = {
    "verdict": "reliable",
    "verdict_reasons": ["all weights finite", "k-hat 0.30 is below 0.57"],
    "evidence_note": None,
    "num_steps": 1,
    "alpha": 0.25,
    "flag": True,
    "settings": {"width": 96},
}


@pytest.fixture(scope="module")
def result():
    return ind.build(**groups(), names=NAMES, attrs=ATTRS)


# ---------------------------------------------------------------------------- groups


def test_groups_and_dims(result):
    assert ind.group_names(result) == [
        "posterior",
        "log_likelihood",
        "sample_stats",
        "observed_data",
        "constant_data",
        "importance",
        "training",
    ]
    posterior = ind.group_dataset(result, "posterior")
    assert posterior["theta"].dims == ("chain", "draw", "school")
    assert posterior["cov"].dims == ("chain", "draw", "row", "cov_dim_1")
    assert_array_equal(posterior["school"], SCHOOLS)
    assert_array_equal(posterior["row"], [0, 1])
    assert dict(posterior.sizes) == {"chain": 4, "draw": 50, "school": 3, "row": 2, "cov_dim_1": 2}
    draws = ind.group_dataset(result, "importance")
    assert draws["theta"].dims == ("importance_draw", "school")
    assert draws["log_weight"].dims == ("importance_draw",)
    assert ind.group_dataset(result, "observed_data")["y"].dims == ("school",)
    training = ind.group_dataset(result, "training")
    assert training["loss"].dims == ("training_step",)
    assert training["round_seconds"].dims == ("training_round",)
    assert training["num_gradients"].item() == 700_000


def test_container_of_the_installed_line(result):
    legacy = az.__version__.startswith("0.")
    assert type(result).__name__ == ("InferenceData" if legacy else "DataTree")
    assert result["posterior"]["mu"].shape == (4, 50)
    assert result.posterior["mu"].dtype == np.float32


def test_sample_stats_scalars_are_float64(result):
    stats = ind.group_dataset(result, "sample_stats")
    for name in ("log_evidence", "log_evidence_se", "pareto_k", "ess_importance"):
        assert stats[name].shape == () and stats[name].dtype == np.float64
    assert stats["log_evidence"].item() == -31.25
    assert stats["acceptance_rate"].dims == ("chain", "draw")


def test_factor_sites_are_left_out(result):
    assert set(ind.group_dataset(result, "log_likelihood")) == {"y"}
    assert set(ind.group_dataset(result, "observed_data")) == {"y"}


def test_log_likelihood_of_multivariate_observations_loses_the_event_dims():
    parts = groups()
    parts["observed_data"] = {"y": np.zeros((3, 2))}
    names = ind.merge_names({"y": ["J", "component"]})
    out = ind.build(**parts, names=names)
    assert ind.group_dataset(out, "log_likelihood")["y"].dims == ("chain", "draw", "J")
    assert ind.group_dataset(out, "observed_data")["y"].dims == ("J", "component")


def test_optional_groups_and_predictions():
    parts = groups()
    for name in ("log_likelihood", "observed_data", "constant_data"):
        del parts[name]
    rng = np.random.default_rng(0)
    extra = {
        "posterior_predictive": {"y": rng.standard_normal((4, 50, 3))},
        "prior": {"theta": rng.standard_normal((1, 20, 3))},
        "prior_predictive": {"y": rng.standard_normal((1, 20, 3))},
    }
    out = ind.build(**parts, **extra, names=NAMES)
    assert set(ind.group_names(out)) == {
        *("posterior", "posterior_predictive", "sample_stats", "prior", "prior_predictive"),
        *("importance", "training"),
    }
    assert ind.group_dataset(out, "prior")["theta"].dims == ("chain", "draw", "school")
    with pytest.raises(ValueError, match="expected a result with a group 'log_likelihood'"):
        ind.group_dataset(out, "log_likelihood")


def test_sites_named_like_weights_are_kept():
    parts = groups()
    parts["posterior"]["sign"] = parts["posterior"]["theta"]
    parts["importance"]["sign"] = parts["importance"]["theta"]
    out = ind.build(**parts, names=ind.merge_names({"sign": ["J"]}))
    draws = ind.group_dataset(out, "importance")
    assert draws["sign"].dims == ("importance_draw",)
    assert draws["sign_draw"].dims == ("importance_draw", "J")
    assert ind.group_dataset(out, "posterior")["sign"].dims == ("chain", "draw", "J")


def test_scoped_names_lose_their_slash(tmp_path):
    parts = groups()
    parts["posterior"]["left/x"] = parts["posterior"].pop("theta")
    names = ind.merge_names({"left/x": ["left/J"]}, {}, {}, {"left/J": SCHOOLS})
    out = ind.build(**parts, names=names)
    site = ind.group_dataset(out, "posterior")["left.x"]
    assert site.dims == ("chain", "draw", "left.J")
    assert_array_equal(site["left.J"], SCHOOLS)
    out.to_netcdf(str(tmp_path / "scoped.nc"))


# ---------------------------------------------------------------------------- names


def test_users_names_override_the_plates():
    names = ind.merge_names({"theta": ["J"]}, {"J": [1, 2, 3]}, {"theta": ["school"]}, {})
    assert list(names.dims["theta"]) == ["school"]
    names = ind.merge_names({"theta": ["J"]}, {"J": [1, 2, 3]}, {}, {"J": SCHOOLS})
    assert_array_equal(names.coords["J"], SCHOOLS)
    ind.check_names({"theta": (3,), "other": (3, 5)}, names)


@pytest.mark.parametrize(
    ("dims", "coords", "message"),
    [
        ({"theta": ["school"]}, {"school": SCHOOLS[:2]}, r"expected 3 labels .*'theta'; got 2"),
        ({"theta": ["a", "b"]}, {}, "expected at most 1 dims for site 'theta'"),
        ({"theta": ["theta"]}, {}, "expected dims of site 'theta' other than"),
        ({"theta": ["mu"]}, {}, "expected dims of site 'theta' other than a site's name"),
        ({"theta": ["draw"]}, {}, "expected dims of site 'theta' other than"),
        ({"cov": ["row", "row"]}, {}, "expected different dims for site 'cov'"),
        ({"theta": ["d"], "cov": ["d", "e"]}, {}, "expected dim 'd' to have one size"),
        ({"theta": "school"}, {}, r"expected dims\['theta'\] as a list"),
        ({}, {"school": "abc"}, r"expected coords\['school'\] as a list"),
    ],
)
def test_disagreeing_names_are_refused_early_and_late(dims, coords, message):
    with pytest.raises(ValueError, match=message):
        names = ind.merge_names({}, {}, dims, coords)
        ind.check_names({"mu": (), "theta": (3,), "cov": (2, 2)}, names)
    with pytest.raises(ValueError, match=message):
        ind.build(**groups(), names=ind.merge_names({}, {}, dims, coords))


@pytest.mark.parametrize(
    ("group", "entry", "message"),
    [
        ("posterior", {"mu": np.zeros(3)}, "expected 'mu' to start with axes"),
        ("posterior", {"mu": np.zeros((4, 49))}, "expected one size for axes"),
        ("sample_stats", {"lp": np.zeros(7)}, "expected sample statistic 'lp'"),
        ("importance_weights", {"sign": np.zeros((2, 2))}, "expected one 'sign' per importance"),
        ("training", {"loss": ("step", np.zeros((2, 2)))}, "expected 2 dims for training record"),
    ],
)
def test_arrays_of_the_wrong_shape_are_refused(group, entry, message):
    parts = groups()
    parts[group].update(entry)
    with pytest.raises(ValueError, match=message):
        ind.build(**parts)


# ---------------------------------------------------------------------------- attrs and files


def test_attrs_are_plain(result):
    attrs = result.attrs
    assert attrs["inference_library"] == "numpyro_onestep"
    assert attrs["arviz_version"] == az.__version__
    assert attrs["verdict"] == "reliable" and attrs["evidence_note"] == ""
    assert attrs["num_steps"] == 1.0 and isinstance(attrs["num_steps"], float)
    assert attrs["flag"] == "true" and attrs["settings"] == '{"width": 96}'
    assert all(type(value) in (str, float, list) for value in attrs.values())
    plain = ind.plain_attrs({"a": np.arange(2), "b": ("x", 1), "c": np.float32(2), "d": object})
    assert plain["a"] == [0.0, 1.0] and plain["b"] == ["x", "1.0"] and plain["c"] == 2.0
    assert isinstance(plain["d"], str)


@pytest.mark.parametrize("reasons", [[], ["one reason"], ["one reason", "another; with 5 %"]])
def test_netcdf_round_trip(tmp_path, reasons):
    written = ind.build(**groups(), names=NAMES, attrs={**ATTRS, "verdict_reasons": reasons})
    path = tmp_path / "result.nc"
    written.to_netcdf(str(path))
    read = ind.from_netcdf(path)
    assert set(ind.group_names(read)) == set(ind.group_names(written))
    for name in ind.group_names(written):
        xr.testing.assert_equal(ind.group_dataset(read, name), ind.group_dataset(written, name))
        for site, values in ind.group_dataset(written, name).items():
            if values.dtype.kind != "U":
                assert ind.group_dataset(read, name)[site].dtype == values.dtype
    for name in ("verdict", "evidence_note", "num_steps", "alpha", "flag", "settings"):
        assert read.attrs[name] == written.attrs[name]
    assert ind.list_attr(read, "verdict_reasons") == reasons
    assert ind.list_attr(written, "verdict_reasons") == reasons
    assert ind.list_attr(read, "no such attribute") == []
    assert_allclose(ind.summary(read), ind.summary(written))


# ---------------------------------------------------------------------------- ArviZ reads it


def test_summary_table_has_the_rows_and_diagnostics_of_arviz(result):
    # The bool site is left to our table: az.summary of 1.x cannot take its quantiles.
    assert ind.summary(result).loc["is_large", "r_hat"] < 1.1
    sites = ["mu", "theta", "cov", "count"]
    table = ind.summary(result, sites)
    theirs = az.summary(result, var_names=sites, round_to="none")
    assert list(table.index) == list(theirs.index)
    assert "theta[Deerfield]" in table.index and "cov[1, 0]" in table.index
    assert list(table.columns) == [
        *("mean", "sd", "median", "5.0%", "95.0%", "ess_bulk", "ess_tail", "r_hat")
    ]
    # ArviZ computes float32 sites in float32, the table in float64.
    for column in ("mean", "sd", "ess_bulk", "ess_tail", "r_hat"):
        assert_allclose(table[column], theirs[column].astype(float), rtol=2e-3, atol=1e-6)
    theta = ind.group_dataset(result, "posterior")["theta"].to_numpy()[..., 1]
    assert_allclose(table.loc["theta[Deerfield]", "5.0%"], np.quantile(theta, 0.05), rtol=1e-5)


def test_summary_options(result):
    table = ind.summary(result, ["mu", "theta"], prob=0.5)
    assert list(table.index) == ["mu", *(f"theta[{s}]" for s in SCHOOLS)]
    assert {"25.0%", "75.0%"} <= set(table.columns)
    with pytest.raises(ValueError, match="expected variables out of"):
        ind.summary(result, ["nu"])
    with pytest.raises(ValueError, match="expected a probability"):
        ind.summary(result, prob=1.0)


def test_summary_of_constant_and_stuck_scalars():
    parts = groups()
    parts["posterior"]["mu"] = np.full((4, 50), 2.0)
    parts["posterior"]["is_large"] = np.arange(4.0)[:, None] + np.zeros((4, 50))
    table = ind.summary(ind.build(**parts, names=NAMES))
    assert table.loc["mu", "sd"] == 0.0
    assert not table.loc["is_large", "r_hat"] < 1.05


def test_loo_works_on_the_result(result):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random log-likelihoods: large k is expected
        loo = az.loo(result, pointwise=True)
    assert np.isfinite(getattr(loo, "elpd", None) or loo["elpd_loo"])
    assert np.shape(loo.pareto_k) == (3,)


def test_imh_result_has_honest_convergence_diagnostics():
    # Good proposals: r-hat near 1 and an ESS below the number of draws; then a chain that sticks.
    rng = np.random.default_rng(1)
    x = 1.4 * rng.standard_normal(4000)
    log_w = -0.5 * x**2 + 0.5 * (x / 1.4) ** 2
    parts = groups(draws=1000)

    def table(log_weight):
        chains = imp.imh_chains(3, log_weight, num_chains=4, num_samples=1000)
        parts["posterior"] = {"x": x[chains.indices]}
        stats = {"acceptance_rate": chains.acceptance_probability}
        empty = {"log_likelihood": {}, "observed_data": {}}
        return ind.summary(ind.build(**{**parts, "sample_stats": stats, **empty}))

    good = table(log_w)
    assert good.loc["x", "r_hat"] < 1.01
    # Acceptance about 0.8: rejections cost draws. 4000 would be the ESS of independent ones.
    assert 1500 < good.loc["x", "ess_bulk"] < 3800
    stuck = log_w.copy()
    stuck[np.argmax(x[:1000])] = log_w.max() + 8.0
    bad = table(stuck)
    assert bad.loc["x", "r_hat"] > 1.05 and bad.loc["x", "ess_bulk"] < 300
