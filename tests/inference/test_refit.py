"""Warm starts: nothing traced or compiled again, and a verdict that knows no favours."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import QUICK, X, Y, run, stat
from scipy import stats

from numpyro_onestep import OneStepInference, plot_training
from numpyro_onestep.exploration import modes
from numpyro_onestep.inference_data import group_dataset
from numpyro_onestep.training import loop

CALLS = []


def located(y, spread=None):
    """A conjugate model whose evidence is known, and which counts how often it is called."""
    CALLS.append(1)
    centre = numpyro.sample("centre", dist.Normal(0.0, 10.0))
    tilt = numpyro.sample("tilt", dist.Normal(0.0, 10.0))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(centre + tilt * X, 1.0), obs=y)


def log_evidence(y):
    design = np.stack([np.ones(8), X])
    return stats.multivariate_normal(np.zeros(8), np.eye(8) + 100.0 * design.T @ design).logpdf(y)


@pytest.fixture(scope="module")
def fitted():
    return run(located, jnp.asarray(Y))


def refit(inference, y, key=1):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the verdict on this run")
        return inference.refit(jax.random.key(key), jnp.asarray(y))


def test_new_data_without_compilation(fitted, caplog):
    """One refit, far away: no trace of the model, no program compiled, the right evidence."""
    y = 20.0 - 3.0 * Y
    CALLS.clear()
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        result = refit(fitted, y)
    assert not [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]
    # Shapes of the sites are looked at for names and chunks; training would be thousands.
    assert len(CALLS) <= 6
    error = abs(stat(fitted, "log_evidence") - log_evidence(y))
    assert error <= 4.0 * stat(fitted, "log_evidence_se") < 0.1
    assert result is fitted.inference_data
    np.testing.assert_allclose(group_dataset(result, "observed_data")["y"], y, rtol=1e-6)
    assert abs(float(np.mean(fitted.get_samples()["centre"])) - np.mean(y)) < 0.3
    # Both posteriors are normal: the draws of the fit say so, nothing is trained.
    record = group_dataset(result, "training")
    assert record.sizes["training_step"] == 0 and record.sizes["round"] == 1
    assert record["ess_fraction"].min() > 0.995
    # Other starts lead to the same normal.
    assert not fitted._fit.trained.rivals


def test_the_same_key_gives_the_same_refit(fitted):
    before = fitted._fit
    results = []
    for _ in range(2):
        fitted._fit = before
        results.append(refit(fitted, Y, key=4))
    one, other = results
    for group in ("posterior", "importance"):
        assert group_dataset(one, group).identical(group_dataset(other, group))


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_interrupted_before_there_is_anything(fitted, monkeypatch):
    before = fitted.inference_data
    with monkeypatch.context() as patch:
        patch.setattr(modes, "temper", interrupt)
        with pytest.raises(KeyboardInterrupt):
            refit(fitted, Y + 1.0)
    assert fitted.inference_data is before
    assert fitted.sample(jax.random.key(0), 10).samples["centre"].shape == (10,)


def test_interrupted_in_the_first_round(fitted, monkeypatch):
    """The old map in the coordinates of the new posterior: usable, and said to be unfinished."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw", interrupt)
        refit(fitted, Y + 1.0)
    assert any("stopped early (interrupted)" in text for text in fitted.verdict.reasons)
    assert fitted.verdict.label != "reliable"
    error = abs(stat(fitted, "log_evidence") - log_evidence(Y + 1.0))
    assert error <= 4.0 * stat(fitted, "log_evidence_se") < 0.1


def test_a_figure_of_no_training(fitted):
    refit(fitted, Y)
    figure = plot_training(fitted.inference_data)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert len(lines["rounds"].get_ydata()) == 2
    assert figure.axes[2].get_title() == "no training"
    figure.draw_without_rendering()


def test_other_shapes_are_for_run(fitted):
    before = fitted.inference_data
    with pytest.raises(ValueError, match=r"expected the argument 'y' to have shape \(8,\)"):
        refit(fitted, np.append(Y, 0.0))
    with pytest.raises(ValueError, match="expected model arguments of the same structure"):
        fitted.refit(jax.random.key(0), jnp.asarray(Y), spread=1.0)
    with pytest.raises(ValueError, match="NaN"):
        refit(fitted, np.where(X > 0, np.nan, Y))
    assert fitted.inference_data is before, "a refit that fails leaves the last run as it was"
    with pytest.raises(RuntimeError, match="call `run` first"):
        OneStepInference(located).refit(jax.random.key(0), Y)


def two_modes(y):
    """Symmetric in the sign of `a`: one mode at 0 for small `y`, two for large ones."""
    a = numpyro.sample("a", dist.Normal(0.0, 3.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(a**2 + 0.0 * b, 0.5), obs=y)


@pytest.mark.slow
def test_new_data_with_more_modes():
    """Each gets a sampler of its own; the evidence against the trapezoidal rule."""
    inference = run(two_modes, np.full(4, -3.0))
    assert np.abs(np.mean(inference.get_samples()["a"])) < 0.5
    refit(inference, np.full(4, 4.0))
    assert abs(np.mean(np.asarray(inference.get_samples()["a"]) > 0.0) - 0.5) < 0.1
    a = np.linspace(-6.0, 6.0, 4001)
    log_joint = stats.norm(0.0, 3.0).logpdf(a) + 4.0 * stats.norm(a**2, 0.5).logpdf(4.0)
    truth = np.log(np.sum(np.exp(log_joint)) * (a[1] - a[0]))
    assert abs(stat(inference, "log_evidence") - truth) < 0.05


def test_a_sampler_that_does_not_carry_over_says_so():
    """A warm start in one of two modes, where there is one sampler only, is found out."""
    method = dataclasses.replace(QUICK, max_modes=1)
    inference = run(two_modes, np.full(4, -3.0), options={"method": method})
    with pytest.warns(UserWarning, match="'unreliable'"):
        inference.refit(jax.random.key(0), np.full(4, 4.0))
    assert inference.verdict.label == "unreliable"
