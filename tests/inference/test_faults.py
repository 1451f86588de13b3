"""Faults in the middle of a run: nothing is lost, and nothing is silently wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import QUICK, X, Y, line, run, stat
from scipy import integrate, stats
from test_bad_runs import LONG, check_stopped

from numpyro_onestep import OneStepInference, compare_evidence
from numpyro_onestep.exploration import modes
from numpyro_onestep.inference.summary import format_summary
from numpyro_onestep.training import loop
from numpyro_onestep.training.methods import resample_move

KEY = jax.random.key(0)


def half_without_gradient():
    """The value is fine everywhere; its gradient is NaN left of 0.5, as `where` does to users."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.factor("bend", -jnp.where(x[0] > 0.5, jnp.sqrt(x[0] - 0.5), 0.0))


@pytest.mark.slow
def test_nan_gradients():
    inference = run(half_without_gradient)
    truth = integrate.quad(
        lambda x: stats.norm.pdf(x) * np.exp(-np.sqrt(max(x - 0.5, 0.0))), -10, 10, points=[0.5]
    )[0]
    # Chains by gradients cannot enter that half, so nothing has tested it.
    assert inference.verdict.label != "reliable"
    # The fit averages over the other half only and may collapse; then the run is refused.
    raw = inference.inference_data["importance"]
    weight = np.asarray(raw["sign"]) * np.exp(np.asarray(raw["log_weight"]))
    below = weight[np.asarray(raw["x"])[:, 0] < 0.5].sum() / weight.sum()
    noise = 4.0 * 0.5 / np.sqrt(stat(inference, "ess_importance"))
    error = abs(stat(inference, "log_evidence") - np.log(truth))
    right = error <= max(4.0 * stat(inference, "log_evidence_se"), 1e-3)
    right &= abs(below - stats.norm.cdf(0.5) / truth) <= noise
    assert right or inference.verdict.label == "unreliable", inference.verdict.reasons


def hole(value):
    """A density that is `value` times the standard normal beyond 2.5, where 0.6 % of it lie."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("hole", jnp.where(x > 2.5, value, 0.0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_nobody_knows(value):
    """A few draws of unknown weight: no number is given that needs them, and it is said why."""
    inference = run(hole, value)
    samples, log_weight = inference.get_weighted_samples()
    unknown = np.asarray(samples["x"]) > 2.5
    assert unknown.any() and not np.isfinite(log_weight[unknown]).any()
    assert np.isnan(stat(inference, "log_evidence")) and inference.verdict.label != "reliable"
    assert any("log-density is NaN or infinite" in r for r in inference.verdict.reasons)
    with pytest.raises(ValueError, match=f"got NaN or .inf at {unknown.sum()} of "):
        inference.weighted_summary()
    with pytest.raises(ValueError, match="got NaN or .inf at "):
        inference.expectation(lambda sites: sites["x"])
    with pytest.raises(ValueError, match="model 'a': expected a"):
        compare_evidence({"a": inference, "b": inference})
    assert np.max(inference.get_samples()["x"]) <= 2.5
    assert "not available" in format_summary(inference.inference_data)


def test_weights_of_zero_are_known():
    inference = run(hole, -np.inf)
    samples, log_weight = inference.get_weighted_samples()
    beyond = np.asarray(samples["x"]) > 2.5
    assert beyond.any() and np.isneginf(log_weight[beyond]).all()
    error = stat(inference, "log_evidence") - stats.norm.logcdf(2.5)
    assert abs(error) < 4.0 * stat(inference, "log_evidence_se")
    mean = inference.expectation(lambda sites: sites["x"])
    truth = -stats.norm.pdf(2.5) / stats.norm.cdf(2.5)
    assert abs(mean.value - truth) < 4.0 * mean.mcse


def fail_at(number, error, function):
    """`function`, but its call of this number raises."""
    calls = []

    def failing(*args, **kwargs):
        calls.append(None)
        if len(calls) == number:
            raise error
        return function(*args, **kwargs)

    return failing


@pytest.mark.parametrize("part", ["improve", "draw"])
def test_interrupted_in_the_middle_of_a_round(part, monkeypatch):
    # The first draws are those of the Gaussian fit, before any round.
    number = 3 if part == "draw" else 2
    interrupted = fail_at(number, KeyboardInterrupt(), getattr(loop, part))
    monkeypatch.setattr(loop, part, interrupted)
    inference = run(line, X, Y, options={"method": LONG})
    check_stopped(inference, "interrupted", 1 if part == "draw" else 2)


def test_interrupted_before_there_is_anything(monkeypatch):
    inference = run(line, X, Y, options={"method": LONG, "time_limit": 1e-3})
    before = inference.inference_data
    monkeypatch.setattr(modes, "temper", fail_at(1, KeyboardInterrupt(), modes.temper))
    with pytest.raises(KeyboardInterrupt):
        inference.run(KEY, X, Y)
    assert inference.inference_data is before
    assert inference.sample(KEY, 10).samples["slope"].shape == (10,)


def test_run_time_error_in_a_round(monkeypatch):
    """Out of memory, or a callback of the model that raises: the rounds before it are kept."""
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")
    monkeypatch.setattr(loop, "improve", fail_at(2, error, loop.improve))
    inference = run(line, X, Y, options={"method": LONG})
    check_stopped(inference, "RESOURCE_EXHAUSTED: out of memory", 2)


def test_run_time_error_in_the_first_round(monkeypatch):
    error = jax.errors.JaxRuntimeError("INTERNAL: callback failed")
    monkeypatch.setattr(loop, "improve", fail_at(1, error, loop.improve))
    with pytest.raises(jax.errors.JaxRuntimeError, match="callback failed"):
        run(line, X, Y, options={"method": LONG})


@pytest.mark.slow
def test_model_that_raises_at_times():
    """The error is the model's own, the last run stays, and the next attempt works."""
    fails = []

    def moody(x, y=None):
        if fails:
            raise ZeroDivisionError("the model's own")
        line(x, y)

    options = {"method": LONG, "time_limit": 1e-3, "progress_bar": False}
    inference = OneStepInference(moody, **options)
    inference.run(KEY, X, Y)
    before = inference.inference_data
    fails.append(True)
    with pytest.raises(ZeroDivisionError, match="the model's own"):
        inference.run(KEY, X, Y + 1.0)
    assert inference.inference_data is before
    fails.clear()
    assert inference.sample(KEY, 10).samples["slope"].shape == (10,)
    inference.run(KEY, X, Y + 1.0)
    assert inference.inference_data is not before


@pytest.mark.slow
def test_steps_without_finite_gradient_are_passed_over(monkeypatch):
    """A round of training with nothing but NaN leaves the sampler as it was."""
    ordinary = run(line, X, Y, options={"method": LONG, "time_limit": 1e-3})

    def nothing(target, affine, z):
        value, score = original(target, affine, z)
        return value, jnp.full_like(score, jnp.nan)

    original = resample_move.value_and_score
    monkeypatch.setattr(resample_move, "value_and_score", nothing)
    jax.clear_caches()
    inference = run(line, X, Y, options={"method": QUICK})
    jax.clear_caches()
    assert np.isfinite(stat(inference, "log_evidence"))
    error = stat(inference, "log_evidence") - stat(ordinary, "log_evidence")
    assert abs(error) <= 4.0 * np.hypot(
        stat(inference, "log_evidence_se"), stat(ordinary, "log_evidence_se")
    )
