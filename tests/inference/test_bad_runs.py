"""Bad input through the facade: an error that names the cause, or a run that says what it is."""

import dataclasses
import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from quick import QUICK, X, Y, line, run, stat

from numpyro_onestep import OneStepInference, ResampleMove
from numpyro_onestep.inference import facade, progress
from numpyro_onestep.inference import run as run_module
from numpyro_onestep.inference.arguments import typed_key

KEY = jax.random.key(0)


def only_observed():
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=1.0)


def unbounded_discrete():
    rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
    numpyro.sample("count", dist.Poisson(rate))


def finite_discrete():
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    numpyro.sample("label", dist.Bernoulli(p))


def subsampled():
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", 4, subsample_size=2):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=np.zeros(2))


@pytest.mark.parametrize(
    "model, args, error, message",
    [
        (lambda: None, (), ValueError, "without sample sites"),
        (only_observed, (), ValueError, r"only observed ones: \['y'\]"),
        (unbounded_discrete, (), RuntimeError, "count does not have enumerate support"),
        (finite_discrete, (), ImportError, r"'label'.*numpyro_onestep\[funsor\]"),
        (subsampled, (), ValueError, "do not support subsampling"),
        (line, (X, np.where(X > 0.9, np.nan, Y)), ValueError, "site 'height'"),
        (line, (np.where(X > 0.9, np.inf, X), Y), ValueError, "site 'height'"),
    ],
    ids=["no site", "observed", "unbounded", "no funsor", "subsample", "nan", "inf"],
)
def test_the_target_refuses(model, args, error, message, monkeypatch):
    if error is ImportError:
        monkeypatch.setitem(sys.modules, "funsor", None)
    with pytest.raises(error, match=message):
        run(model, *args)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_samples": 0}, "expected num_samples to be a positive int; got 0"),
        ({"num_samples": -5}, "expected num_samples to be a positive int; got -5"),
        ({"num_samples": 10.5}, "expected num_samples to be a positive int; got 10.5"),
        ({"num_chains": 0}, "expected num_chains to be a positive int; got 0"),
        ({"num_chains": True}, "expected num_chains to be a positive int; got True"),
        ({"num_steps": -1}, "expected num_steps to be a positive int; got -1"),
        ({"num_samples": 10}, r"expected num_samples \* num_chains >= 100.*; got 10 \* 4"),
        ({"posterior": "mcmc"}, "expected posterior to be one of .*'imh'.*; got 'mcmc'"),
        ({"target_ess": 0.0}, "expected a positive target_ess, a number of draws; got 0.0"),
        ({"target_ess": float("inf")}, "expected a positive target_ess, .*; got inf"),
        ({"time_limit": 0.0}, "expected a positive time_limit in seconds; got 0.0"),
        ({"time_limit": float("nan")}, "expected a positive time_limit in seconds; got nan"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        OneStepInference(line, **options)


def test_no_model():
    with pytest.raises(ValueError, match="a NumPyro model, the function itself; got 'line'"):
        OneStepInference("line")


@pytest.mark.parametrize("method", ["osds", ResampleMove])
def test_no_method(method):
    with pytest.raises(ValueError, match=r"expected a method such as ResampleMove\(\); got"):
        OneStepInference(line, method=method)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_legacy_key_becomes_the_typed_one(impl):
    """Programs compiled for either would differ in rounding, and the runs after some rounds."""
    with jax.default_prng_impl(impl):
        typed = jax.random.key(3)
        for key in (typed, jax.random.PRNGKey(3)):
            found = typed_key(key)
            assert found.dtype == typed.dtype
            assert jax.random.key_data(found).tolist() == jax.random.key_data(typed).tolist()


@pytest.mark.parametrize("key", [0, X, jax.random.split(jax.random.key(0))])
def test_no_key(key):
    with pytest.raises(ValueError, match=r"expected one key such as jax.random.key\(0\); got"):
        OneStepInference(line).run(key, X, y=Y)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dims": {"slope": ["a"]}}, "expected at most 0 dims for site 'slope'"),
        ({"dims": {"height": ["a", "b"]}}, "expected at most 1 dims for site 'height'"),
        ({"dims": {"slope": "a"}}, r"expected dims\['slope'\] as a list of names; got 'a'"),
        ({"coords": {"n": [1, 2]}}, r"expected 8 labels in coords\['n'\]"),
    ],
)
def test_names_are_checked_before_the_work(options, message, monkeypatch):
    monkeypatch.setattr(facade, "train", None)
    with pytest.raises(ValueError, match=message):
        run(line, X, Y, options=options)


def test_nothing_before_run():
    inference = OneStepInference(line)
    for call in (
        inference.get_samples,
        inference.get_weighted_samples,
        inference.get_extra_fields,
        inference.print_summary,
        lambda: inference.sample(KEY, 10),
        lambda: inference.verdict,
    ):
        with pytest.raises(RuntimeError, match="call `run` first"):
            call()


def improper_and_masked(y):
    mu = numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    with handlers.mask(mask=False):
        nu = numpyro.sample("nu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([8]).to_event(1), obs=y)
    numpyro.sample("z", dist.Normal(nu, 1.0).expand([8]).to_event(1), obs=y)


def test_priors_without_an_integral():
    inference = run(improper_and_masked, Y)
    result = inference.inference_data
    assert np.isnan(stat(inference, "log_evidence"))
    assert np.isnan(stat(inference, "log_evidence_se"))
    assert np.isnan(stat(inference, "elbo")) and np.isnan(stat(inference, "eubo"))
    note = result.attrs["evidence_note"]
    assert "prior of 'mu' is improper" in note and "prior of 'nu' is masked" in note
    # The posterior is a fine one: both means are N(mean y, 1 / 8).
    assert inference.verdict.label == "reliable"
    for site in ("mu", "nu"):
        draws = np.asarray(inference.get_samples()[site])
        assert abs(draws.mean() - Y.mean()) < 0.05
        assert abs(draws.std() - 8**-0.5) < 0.03


def scaled_with_factor(y):
    with handlers.scale(scale=0.5):
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([8]).to_event(1), obs=y)
    numpyro.factor("penalty", -1.5)


def test_statements_that_change_the_evidence(capsys):
    inference = run(scaled_with_factor, Y)
    note = inference.inference_data.attrs["evidence_note"]
    assert "'penalty'" in note and "prior of 'mu' is scaled" in note
    # N(mu; 0, 2)^0.5 = (8 pi)^-1/4 sqrt(16 pi) N(mu; 0, sqrt 8), and the rest is conjugate.
    constant = -0.25 * np.log(8.0 * np.pi) + 0.5 * np.log(16.0 * np.pi) - 1.5
    covariance = np.eye(8) + 8.0
    truth = constant - 0.5 * (
        Y @ np.linalg.solve(covariance, Y)
        + np.linalg.slogdet(covariance)[1]
        + 8 * np.log(2.0 * np.pi)
    )
    error = abs(stat(inference, "log_evidence") - truth)
    assert error <= max(4.0 * stat(inference, "log_evidence_se"), 1e-4) <= 0.02
    inference.print_summary()
    assert "'penalty'" in capsys.readouterr().out


def flat():
    numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("b", dist.ImproperUniform(dist.constraints.real, (), ()))


def without_end():
    """Proper statements, but the factor takes away what makes the prior integrable."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("undo", 0.5 * x**2)


@pytest.mark.parametrize("model", [flat, without_end])
def test_improper_posterior(model):
    with pytest.warns(UserWarning, match="the verdict on this run is 'unreliable'.*improper"):
        inference = run(model, warn=True)
    assert inference.verdict.label == "unreliable"
    assert inference.inference_data.attrs["verdict"] == "unreliable"
    assert np.isnan(stat(inference, "log_evidence"))
    inference.print_summary()


def two_modes():
    modes = dist.Normal(np.array([-8.0, 8.0]), 1.0)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(np.array([0.3, 0.7])), modes))


def test_more_modes_than_wanted():
    """The draws cover one mode with perfect weights; what exploration found gives it away."""
    method = dataclasses.replace(QUICK, max_modes=1)
    with pytest.warns(UserWarning, match=r"search for modes .* found a part of the posterior"):
        inference = run(two_modes, warn=True, options={"method": method})
    assert inference.verdict.label == "unreliable"
    assert stat(inference, "ess_importance") > 7200.0


def signed_scale(y):
    scale = numpyro.sample("scale", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(0.0, scale), obs=y)


@pytest.mark.slow
def test_a_density_that_is_undefined_in_half_of_the_prior_is_noted():
    """As NUTS does, the run takes a negative scale for impossible, but it says so."""
    y = np.array([0.6, -0.4, 1.1])
    inference = run(signed_scale, y)
    assert any("NaN at 50 % of the prior" in text for text in inference.verdict.reasons)
    assert (np.asarray(inference.get_samples()["scale"]) > 0.0).all()
    assert (np.asarray(inference.get_samples()["scale"]) > 0.0).all()


class InterruptedBar:
    """A progress bar during whose second update the user presses Ctrl-C."""

    def __init__(self, **_):
        self.updates = 0

    def set_postfix(self, **_):
        pass

    def update(self):
        self.updates += 1
        if self.updates == 2:
            raise KeyboardInterrupt

    def close(self):
        pass


LONG = ResampleMove(
    width=16, num_blocks=2, num_points=500, num_updates=50, target_ess=1.0, max_rounds=10
)


def check_stopped(inference, reason, rounds):
    result = inference.inference_data
    assert inference.verdict.label != "reliable"
    assert any(f"stopped early ({reason})" in text for text in inference.verdict.reasons)
    assert result["training"].sizes["round"] == rounds
    assert np.isfinite(stat(inference, "log_evidence"))
    more = inference.sample(jax.random.key(1), 1000)
    assert more.samples["slope"].shape == (1000,)
    difference = more.evidence.log_evidence - stat(inference, "log_evidence")
    assert abs(difference) <= 4.0 * np.hypot(more.evidence.se, stat(inference, "log_evidence_se"))


def test_interrupted(monkeypatch):
    monkeypatch.setattr(progress, "tqdm", InterruptedBar)
    inference = run(line, X, Y, options={"method": LONG})
    check_stopped(inference, "interrupted", 2)


def test_interrupted_while_checking(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    inference = OneStepInference(line, method=LONG, time_limit=1e-3, progress_bar=False)
    with monkeypatch.context() as context:
        context.setattr(run_module, "measure", interrupt)
        with pytest.raises(KeyboardInterrupt):
            inference.run(KEY, X, Y)
    # Nothing was judged, but the sampler is there.
    with pytest.raises(RuntimeError, match="expected a finished run"):
        inference.print_summary()
    assert inference.sample(KEY, 10).samples["slope"].shape == (10,)


def test_time_limit():
    inference = run(line, X, Y, options={"method": LONG, "time_limit": 1e-3})
    check_stopped(inference, "time limit", 1)


def test_sizes_of_sample():
    inference = run(line, X, Y, options={"method": LONG, "time_limit": 1e-3})
    with pytest.raises(ValueError, match="expected num_samples to be a positive int; got 0"):
        inference.sample(KEY, 0)
    with pytest.raises(ValueError, match="expected num_steps to be a positive int; got -2"):
        inference.sample(KEY, 10, num_steps=-2)


def test_a_failed_run_leaves_the_last_one():
    inference = run(line, X, Y, options={"method": LONG, "time_limit": 1e-3})
    before = inference.inference_data
    with pytest.raises(ValueError, match="site 'height'"):
        inference.run(KEY, X, np.full(8, np.nan))
    assert inference.inference_data is before
    assert inference._args[1] is Y
