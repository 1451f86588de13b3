"""Rescue by NUTS through the facade: right draws where weights fail, or a plain refusal."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import QUICK, run, stat
from scipy import stats
from test_bad_runs import two_modes

from numpyro_onestep import OneStepInference, ResampleMove, transport
from numpyro_onestep.inference import rescue as rescue_module
from numpyro_onestep.inference_data import group_dataset

# One update: the map is nearly that of the Gaussian fit, and its weights have a heavy tail.
UNTRAINED = ResampleMove(
    width=16, num_blocks=2, num_points=500, num_updates=1, max_rounds=1, num_annealing=0
)
NUTS = {"method": UNTRAINED, "fallback": "nuts"}
KEY = jax.random.key(0)


def skewed(y=None):
    """Eight independent gammas, whose logarithms have exponential tails, and idle observations."""
    x = numpyro.sample("x", dist.Gamma(0.5, 1.0).expand([8]).to_event(1))
    numpyro.deterministic("first", jnp.log(x[0]))
    numpyro.sample("y", dist.Normal(jnp.zeros(3), 1.0), obs=y)


Y = np.array([0.3, -1.1, 0.4])
LOG_EVIDENCE = float(stats.norm.logpdf(Y).sum())


@pytest.fixture(scope="module")
def refused():
    return run(skewed, Y, options={**NUTS, "fallback": None})


@pytest.fixture(scope="module")
def rescued():
    return run(skewed, Y, options=NUTS)


@pytest.mark.slow
def test_a_refusal_stays_without_a_fallback(refused):
    assert refused.verdict.label == "unreliable"
    assert not any("NUTS in" in reason for reason in refused.verdict.reasons)
    assert refused.inference_data.attrs["fallback"] == ""


def test_right_draws(rescued):
    assert rescued.verdict.label == "rescued", rescued.verdict.reasons
    draws = {name: np.asarray(value) for name, value in rescued.get_samples().items()}
    checks = rescued._run.rescue.checks
    # 40 numbers at 4.5 standard errors of the effective draws, 2000 of 8000 states at the most.
    effective = min(checks.ess_bulk, checks.ess_tail, 2000.0)
    for i in range(8):
        for p in (0.05, 0.25, 0.5, 0.75, 0.95):
            found = np.mean(draws["x"][:, i] <= stats.gamma(0.5).ppf(p))
            assert abs(found - p) <= 4.5 * np.sqrt(p * (1 - p) / effective)
    np.testing.assert_allclose(draws["first"], np.log(draws["x"][:, 0]), rtol=1e-4, atol=1e-4)
    error = stat(rescued, "log_evidence") - LOG_EVIDENCE
    assert abs(error) <= 4.5 * stat(rescued, "log_evidence_se") < 0.4


def test_what_comes_back(rescued, refused, capsys):
    result = rescued.inference_data
    assert result.attrs["fallback"] == "nuts" and result.attrs["posterior_draws"] == "nuts"
    assert result.attrs["verdict"] == "rescued"
    posterior = group_dataset(result, "posterior")
    assert posterior["x"].shape == (4, 500, 8)
    statistics = group_dataset(result, "sample_stats")
    assert {"lp", "log_q", "acceptance_rate", "diverging", "n_steps"} <= set(statistics.data_vars)
    x = posterior["x"].to_numpy().astype(float)
    # In unconstrained coordinates, the logarithms.
    lp = (stats.gamma(0.5).logpdf(x) + np.log(x)).sum(-1) + LOG_EVIDENCE
    np.testing.assert_allclose(statistics["lp"].to_numpy(), lp, rtol=1e-4, atol=1e-3)
    likelihood = group_dataset(result, "log_likelihood")["y"]
    assert likelihood.shape == (4, 500, 3)
    # The raw draws are the one-step sampler's, as they were.
    before = group_dataset(refused.inference_data, "importance")
    assert group_dataset(result, "importance").identical(before)
    assert float(group_dataset(result, "training")["seconds_rescue"]) > 0.0
    rescued.print_summary()
    printed = capsys.readouterr().out
    assert "posterior draws       by NUTS" in printed and "rescued" in printed


def test_what_can_be_asked(rescued):
    by_chain, flat = rescued.get_samples(group_by_chain=True), rescued.get_samples()
    assert by_chain["first"].shape == (4, 500)
    np.testing.assert_array_equal(np.asarray(by_chain["first"]).reshape(-1), flat["first"])
    assert rescued.get_extra_fields()["diverging"].shape == (2000,)
    for ask in (
        lambda: rescued.sample(KEY, 200),
        rescued.get_weighted_samples,
        rescued.weighted_summary,
        lambda: rescued.expectation(lambda sites: sites["first"]),
    ):
        with pytest.warns(UserWarning, match="draws of the one-step sampler, whose weights failed"):
            ask()
    result = rescued.sample_posterior_predictive(KEY)
    assert group_dataset(result, "posterior_predictive")["y"].shape == (4, 500, 3)


def test_saved_and_loaded(rescued, tmp_path):
    rescued.save(tmp_path / "skewed")
    loaded = OneStepInference.load(tmp_path / "skewed", skewed)
    assert loaded.verdict == rescued.verdict
    assert loaded._run.rescue.checks == rescued._run.rescue.checks
    for name, value in rescued.get_samples().items():
        np.testing.assert_array_equal(loaded.get_samples()[name], value)
    assert loaded.inference_data.attrs["fallback"] == "nuts"


@pytest.mark.slow
def test_refit_is_rescued_anew_without_compilation(rescued):
    again = OneStepInference(skewed, num_samples=500, progress_bar=False, **NUTS)
    again.__dict__.update(vars(rescued))
    compiled = transport._advance._cache_size()
    again.refit(jax.random.key(3), Y + 0.1)
    assert again.verdict.label == "rescued", again.verdict.reasons
    assert transport._advance._cache_size() == compiled
    error = stat(again, "log_evidence") - stats.norm.logpdf(Y + 0.1).sum()
    assert abs(error) <= 4.5 * stat(again, "log_evidence_se") < 0.4


@pytest.mark.slow
def test_chains_in_one_of_two_modes_are_no_rescue():
    """One sampler for two far modes: the chains stay where they start, and R-hat says so."""
    method = dataclasses.replace(QUICK, max_modes=1)
    inference = run(two_modes, options={"method": method, "fallback": "nuts"})
    assert inference.verdict.label == "unreliable"
    said = " ".join(inference.verdict.reasons)
    assert "did not pass its checks: R-hat is" in said
    assert inference.inference_data.attrs["fallback"] == ""


@pytest.mark.slow
def test_separate_modes_are_left_alone(refused, monkeypatch):
    monkeypatch.setattr(rescue_module, "Walkers", None)
    fit = refused._run.fit
    two = dataclasses.replace(fit.trained, components=2 * fit.trained.components)
    run = dataclasses.replace(refused._run, fit=dataclasses.replace(fit, trained=two))
    left = rescue_module.rescue(run, KEY, num_chains=4, num_steps=1, deadline=np.inf)
    assert left.verdict.label == "unreliable" and left.rescue is None
    assert "the posterior has 2 separate modes" in left.verdict.reasons[-1]


@pytest.mark.slow
def test_no_time_for_a_rescue(refused):
    for deadline in (-np.inf,):
        left = rescue_module.rescue(refused._run, KEY, num_chains=4, num_steps=1, deadline=deadline)
        assert left.verdict.label == "unreliable" and left.rescue is None
        assert "stopped before (time limit)" in left.verdict.reasons[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "error, said",
    [
        (KeyboardInterrupt(), "A rescue by NUTS was interrupted."),
        (jax.errors.JaxRuntimeError("INTERNAL: callback failed\nand more"), "callback failed)."),
    ],
)
def test_a_rescue_that_is_cut_off_loses_nothing(refused, monkeypatch, error, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(rescue_module.Walkers, "advance", fail)
    left = rescue_module.rescue(refused._run, KEY, num_chains=4, num_steps=1, deadline=np.inf)
    assert left.verdict.reasons[-1].endswith(said)
    np.testing.assert_array_equal(left.indices, refused._run.indices)


def test_options():
    with pytest.raises(ValueError, match="expected fallback to be one of .*'nuts'.* got 'hmc'"):
        OneStepInference(skewed, fallback="hmc")
