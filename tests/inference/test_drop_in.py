"""What worked after `MCMC(NUTS(model)).run(...)` works here, on one fitted hierarchy."""

import pickle
import warnings

import arviz as az
import jax
import numpy as np
import numpyro
import pytest
from numpy.testing import assert_array_equal
from numpyro.infer import Predictive
from quick import EFFECT, ERROR, run, schools, stat

from numpyro_onestep import OneStepInference
from numpyro_onestep.inference_data import from_netcdf, group_dataset, group_names

NAMES = ["Choate", "Deerfield", "Phillips"]
SHAPES = {"mu": (), "tau": (), "eta": (3,), "theta": (3,)}


@pytest.fixture(scope="module")
def fitted():
    return run(schools, ERROR, effect=EFFECT, options={"coords": {"school": NAMES}})


@pytest.fixture(scope="module")
def result(fitted):
    return fitted.inference_data


def equal(a, b):
    """Whether two inferences hold the same numbers bit for bit."""
    for group in ("posterior", "sample_stats", "importance", "log_likelihood"):
        one, other = (group_dataset(i.inference_data, group) for i in (a, b))
        if not one.identical(other):
            return False
    return a.verdict == b.verdict


def test_shapes_of_samples(fitted):
    flat, chains = fitted.get_samples(), fitted.get_samples(group_by_chain=True)
    assert {name: value.shape for name, value in flat.items()} == {
        name: (2000, *shape) for name, shape in SHAPES.items()
    }
    for name, value in chains.items():
        assert isinstance(value, jax.Array)
        assert_array_equal(value.reshape(flat[name].shape), flat[name])
    assert {value.shape[:2] for value in chains.values()} == {(4, 500)}


def test_deterministic_sites(fitted):
    draws = fitted.get_samples()
    theta = draws["mu"][:, None] + draws["tau"][:, None] * draws["eta"]
    np.testing.assert_allclose(draws["theta"], theta, rtol=1e-5, atol=1e-5)


def test_weighted_samples(fitted, result):
    samples, log_weight = fitted.get_weighted_samples()
    # Four proposals per draw of the posterior group.
    assert log_weight.shape == (8000,) and log_weight.dtype == np.float64
    assert {name: value.shape[1:] for name, value in samples.items()} == SHAPES
    stored = group_dataset(result, "importance")
    folded = np.asarray(stored["sign"]) < 0
    assert_array_equal(log_weight[~folded], stored["log_weight"].to_numpy()[~folded])
    assert np.all(log_weight[folded] == -np.inf)
    # Every posterior draw is one of the weighted ones.
    assert np.isin(fitted.get_samples()["mu"], samples["mu"]).all()


def test_extra_fields(fitted):
    flat, chains = fitted.get_extra_fields(), fitted.get_extra_fields(group_by_chain=True)
    assert set(flat) == {"potential_energy", "lp", "log_q", "acceptance_rate"}
    assert_array_equal(flat["potential_energy"], -flat["lp"])
    assert {value.shape for value in flat.values()} == {(2000,)}
    assert {value.shape for value in chains.values()} == {(4, 500)}


def test_fields_that_only_chains_have():
    with pytest.raises(ValueError, match=r"expected extra_fields out of .*; got \['diverging'\]"):
        OneStepInference(schools).run(jax.random.key(0), ERROR, extra_fields=("diverging",))


def test_predictive(fitted):
    predictive = Predictive(schools, fitted.get_samples())
    draws = predictive(jax.random.key(1), ERROR)
    assert draws["effect"].shape == (2000, 3)
    by_chain = Predictive(schools, fitted.get_samples(group_by_chain=True), batch_ndims=2)
    assert by_chain(jax.random.key(1), ERROR)["effect"].shape == (4, 500, 3)


def test_predictive_over_keys(fitted):
    """What NumPyro's own tools map over works on the draws; what decides on the host says so."""
    keys = jax.random.split(jax.random.key(1), 3)
    samples = {name: value[:50] for name, value in fitted.get_samples().items()}
    predictive = Predictive(schools, samples)
    mapped = jax.vmap(lambda key: predictive(key, ERROR)["effect"])(keys)
    np.testing.assert_allclose(mapped[1], predictive(keys[1], ERROR)["effect"], rtol=1e-5)
    for method in (
        lambda key: fitted.sample(key, 100),
        lambda key: fitted.refit(key, ERROR, effect=EFFECT),
        lambda key: OneStepInference(schools).run(key, ERROR, effect=EFFECT),
    ):
        with pytest.raises(TypeError, match="outside of jax.jit and jax.vmap"):
            jax.vmap(method)(keys)


def test_log_likelihood(fitted, result):
    samples = fitted.get_samples()
    values = numpyro.infer.log_likelihood(schools, samples, ERROR, effect=EFFECT)["effect"]
    stored = group_dataset(result, "log_likelihood")["effect"]
    assert stored.dims == ("chain", "draw", "school")
    np.testing.assert_allclose(np.asarray(values).reshape(stored.shape), stored, rtol=1e-5)


def test_from_numpyro(fitted, result):
    """ArviZ 1.3 takes a subclass of `MCMC` only, 0.23 whatever looks like one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = az.from_numpyro(fitted, coords={"school": NAMES})
    assert {"posterior", "sample_stats", "observed_data"} <= set(group_names(converted))
    theirs, ours = (group_dataset(r, "posterior") for r in (converted, result))
    assert set(theirs.data_vars) == set(ours.data_vars)
    for name in theirs.data_vars:
        assert theirs[name].dims == ours[name].dims
        assert_array_equal(theirs[name], ours[name])
    # The log-density, not the energy.
    lp = group_dataset(converted, "sample_stats")["lp"]
    assert_array_equal(lp, group_dataset(result, "sample_stats")["lp"])


def test_groups_and_names(result):
    assert set(group_names(result)) == {
        "posterior",
        "sample_stats",
        "importance",
        "training",
        "log_likelihood",
        "observed_data",
        "constant_data",
    }
    posterior = group_dataset(result, "posterior")
    assert posterior["theta"].dims == ("chain", "draw", "school")
    assert list(posterior["school"].to_numpy()) == NAMES
    assert group_dataset(result, "importance")["theta"].dims == ("importance_draw", "school")
    assert_array_equal(group_dataset(result, "observed_data")["effect"], EFFECT)
    np.testing.assert_allclose(group_dataset(result, "constant_data")["error"], ERROR)
    stats = group_dataset(result, "sample_stats")
    for name in ("log_evidence", "log_evidence_se", "pareto_k", "ess_importance", "elbo", "eubo"):
        assert stats[name].dtype == np.float64 and stats[name].ndim == 0
    assert result.attrs["inference_library"] == "numpyro_onestep"
    assert len(result.attrs["data_digest"]) == 64


def test_weights_in_the_result(result):
    """The evidence is the mean weight, and every weight is its parts."""
    group = group_dataset(result, "importance")
    weight = group["sign"].to_numpy() * np.exp(group["log_weight"].to_numpy())
    log_evidence = float(group_dataset(result, "sample_stats")["log_evidence"])
    assert np.log(weight.mean()) == pytest.approx(log_evidence, abs=1e-9)
    stats = group_dataset(result, "sample_stats")
    assert float(stats["elbo"]) == pytest.approx(group["log_weight"].to_numpy().mean(), abs=1e-9)
    assert float(stats["elbo"]) < log_evidence < float(stats["eubo"])
    psis = group["psis_log_weight"].to_numpy()
    assert np.exp(psis).sum() == pytest.approx(1.0)


def test_training_record(result):
    group = group_dataset(result, "training")
    assert group.sizes["round"] == int(group["num_rounds"])
    assert int(group["num_target_gradients"]) > 0
    seconds = {name: float(group[f"seconds_{name}"]) for name in ("train", "sample", "total")}
    assert 0.0 < seconds["train"] < seconds["total"]


def test_arviz_summary_and_loo(result):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = az.summary(result, round_to="none")
        loo = az.loo(result)
    assert set(table.index) >= {"mu", "tau", "theta[Choate]"}
    # Rejections make it honest: this quick fit must be neither stuck nor perfect.
    assert float(table["r_hat"].astype(float).max()) < 1.03
    assert np.isfinite(float(getattr(loo, "elpd_loo", getattr(loo, "elpd", np.nan))))


def test_netcdf(result, tmp_path):
    path = tmp_path / "schools.nc"
    result.to_netcdf(str(path))
    back = from_netcdf(path)
    assert set(group_names(back)) == set(group_names(result))
    for name in group_names(result):
        one, other = (group_dataset(r, name) for r in (result, back))
        assert one.equals(other), name
    assert back.attrs["verdict"] == result.attrs["verdict"]


def test_print_summary(fitted, capsys):
    fitted.print_summary(prob=0.8)
    text = capsys.readouterr().out
    for word in ("mu", "theta[Choate]", "10.0%", "90.0%", "log evidence", "Pareto k-hat"):
        assert word in text
    assert f"{stat(fitted, 'elbo'):.3f}, {stat(fitted, 'eubo'):.3f} (gap " in text
    assert f"{stat(fitted, 'log_evidence'):.3f} +- {stat(fitted, 'log_evidence_se'):.2g}" in text
    assert fitted.verdict.label in text
    fitted.print_summary(exclude_deterministic=True)
    text = capsys.readouterr().out
    assert "eta[" in text and "theta[" not in text
    assert f"{stat(fitted, 'log_evidence'):.3f}" in text


@pytest.mark.slow
def test_same_key_same_numbers(fitted, monkeypatch):
    """A legacy key and a progress bar change nothing."""
    monkeypatch.delenv("CI", raising=False)
    options = {"coords": {"school": NAMES}, "progress_bar": True}
    again = run(schools, ERROR, effect=EFFECT, key=jax.random.PRNGKey(0), options=options)
    assert equal(fitted, again)


@pytest.mark.slow
def test_other_key_other_numbers_resampled(fitted):
    options = {"coords": {"school": NAMES}, "posterior": "resampled"}
    other = run(schools, ERROR, effect=EFFECT, key=1, options=options)
    # Of 16 million pairs of numbers with 24 bits, one may be equal by chance.
    assert np.isin(other.get_samples()["mu"], fitted.get_samples()["mu"]).mean() < 0.01
    error = abs(stat(other, "log_evidence") - stat(fitted, "log_evidence"))
    ses = [stat(i, "log_evidence_se") for i in (fitted, other)]
    assert error <= 4.0 * np.hypot(*ses)
    assert other.inference_data.attrs["posterior_draws"] == "resampled"
    draws = np.asarray(other.get_samples(group_by_chain=True)["mu"])
    # Equally weighted: the plain mean is the weighted mean of the raw draws.
    samples, log_weight = other.get_weighted_samples()
    weight = np.exp(log_weight - log_weight.max())
    mean = (weight * np.asarray(samples["mu"])).sum() / weight.sum()
    assert abs(draws.mean() - mean) < 0.1 * draws.std()
    # Shuffled: chains of sorted draws would look stuck.
    assert np.ptp(draws.mean(1)) < 0.3 * draws.std()


@pytest.mark.slow
def test_weighted_draws_in_several_steps(fitted):
    options = {"posterior": "weighted", "num_steps": 2}
    two = run(schools, ERROR, effect=EFFECT, options=options)
    samples, _ = two.get_weighted_samples()
    assert_array_equal(two.get_samples()["mu"], samples["mu"])
    ses = [stat(i, "log_evidence_se") for i in (fitted, two)]
    error = abs(stat(two, "log_evidence") - stat(fitted, "log_evidence"))
    assert error <= 4.0 * np.hypot(*ses)
    assert two.inference_data.attrs["num_steps"] == 2.0


def test_sample(fitted):
    draws = fitted.sample(jax.random.key(7), 3000)
    assert {name: value.shape for name, value in draws.samples.items()} == {
        name: (3000, *shape) for name, shape in SHAPES.items()
    }
    assert draws.log_weights.shape == draws.sign.shape == (3000,)
    again = fitted.sample(jax.random.PRNGKey(7), 3000)
    assert_array_equal(draws.log_weights, again.log_weights)
    mean = np.log(np.mean(draws.sign * np.exp(draws.log_weights)))
    assert mean == pytest.approx(draws.evidence.log_evidence, abs=1e-9)
    error = abs(draws.evidence.log_evidence - stat(fitted, "log_evidence"))
    assert error <= 4.0 * np.hypot(draws.evidence.se, stat(fitted, "log_evidence_se"))


def test_sample_in_more_steps(fitted):
    """More steps are another sampler of the same posterior."""
    draws = fitted.sample(jax.random.key(7), 2000, num_steps=4)
    error = abs(draws.evidence.log_evidence - stat(fitted, "log_evidence"))
    assert error <= 4.0 * np.hypot(draws.evidence.se, stat(fitted, "log_evidence_se"))


def test_sample_without_weights(fitted):
    draws = fitted.sample(jax.random.key(7), 3001, weights=False)
    assert draws.log_weights is draws.sign is draws.evidence is None
    assert {name: value.shape for name, value in draws.samples.items()} == {
        name: (3001, *shape) for name, shape in SHAPES.items()
    }
    # The same distribution as the weighted draws before weighting.
    weighted = fitted.sample(jax.random.key(8), 3001)
    for name in ("mu", "tau"):
        a, b = draws.samples[name], weighted.samples[name]
        assert abs(a.mean() - b.mean()) < 4.5 * np.hypot(a.std(), b.std()) / np.sqrt(3001)


def test_sample_does_not_compile_twice(fitted, caplog):
    for num_steps, weights in ((1, True), (1, False), (2, True)):
        fitted.sample(jax.random.key(3), 1500, num_steps=num_steps, weights=weights)
        with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
            caplog.clear()
            fitted.sample(jax.random.key(4), 1500, num_steps=num_steps, weights=weights)
        assert "ompil" not in caplog.text


def test_pickle(fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    assert equal(fitted, copy)
    ours, theirs = (i.sample(jax.random.key(5), 1000) for i in (fitted, copy))
    assert_array_equal(ours.log_weights, theirs.log_weights)
    for name in SHAPES:
        assert_array_equal(ours.samples[name], theirs.samples[name])
