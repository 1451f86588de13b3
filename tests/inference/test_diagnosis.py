"""What `diagnose` says: the culprit by name, from the checks of the run."""

import dataclasses

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import run

from numpyro_onestep import OneStepInference, ResampleMove
from numpyro_onestep.importance import evidence

UNTRAINED = ResampleMove(
    width=16, num_blocks=2, num_points=500, num_updates=1, max_rounds=1, num_annealing=0
)


def one_of_three():
    """Two normals, and a gamma whose logarithm has a long tail to the left."""
    numpyro.sample("even", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("tailed", dist.Gamma(0.3, 1.0).expand([2]).to_event(1))


@pytest.fixture(scope="module")
def fitted():
    return run(one_of_three, options={"method": UNTRAINED})


def section(diagnosis, heading):
    return " ".join(dict(diagnosis.sections)[heading])


def test_names_the_site_of_the_largest_weights(fitted):
    where = section(fitted.diagnose(), "where the largest weights are")
    assert "`tailed[" in where and "is low" in where
    assert "`even" not in where


def test_says_what_the_checks_measured(fitted):
    diagnosis = fitted.diagnose()
    checks, verdict = fitted._run.checks, fitted.verdict
    text = str(diagnosis)
    assert repr(diagnosis) == text
    assert text.startswith(f"verdict: {verdict.label.replace('_', ' ')}")
    assert dict(diagnosis.sections)["findings, and what to do"] == verdict.reasons
    reach = section(diagnosis, "how far the checks could see")
    assert f"{checks.coverage.num_moved} points moved along the posterior" in reach
    assert "Exploration found one mode" in reach
    assert f"{checks.few_step.log_evidence_known:.3f} in twice as many" in reach
    history = fitted._fit.history
    assert f"{history.num_gradients:,} gradients" in section(diagnosis, "what it took")
    assert max(map(len, text.splitlines())) <= 88


@pytest.mark.parametrize(
    ("change", "said"),
    [({}, False), ({"losses": []}, True), ({"losses": [], "diverged": True}, False)],
)
def test_says_where_nothing_was_trained(fitted, change, said):
    """A run that diverged before training was not good enough without it."""
    finished = fitted._run
    history = dataclasses.replace(finished.fit.history, **change)
    fit = dataclasses.replace(finished.fit, history=history)
    other = OneStepInference(one_of_three)
    other.__dict__.update({**vars(fitted), "_run": dataclasses.replace(finished, fit=fit)})
    assert ("good enough before it" in section(other.diagnose(), "what it took")) == said


def test_even_weights_are_nowhere_in_particular(fitted):
    finished = fitted._run
    draws = dataclasses.replace(finished.draws, log_weight=np.zeros(len(finished.draws.x)))
    other = OneStepInference(one_of_three)
    other.__dict__.update({**vars(fitted), "_run": dataclasses.replace(finished, draws=draws)})
    where = section(other.diagnose(), "where the largest weights are")
    # The first twenty of independent draws: a shift of 1 is 4.5 standard errors of their mean.
    assert "nowhere in particular" in where and "0.25 % would be even" in where


def test_without_any_weight(fitted):
    finished = fitted._run
    nothing = np.full(len(finished.draws.x), -np.inf)
    draws = dataclasses.replace(finished.draws, log_weight=nothing)
    checks = dataclasses.replace(finished.checks, coverage=None, one_step=evidence(nothing))
    run_ = dataclasses.replace(finished, draws=draws, checks=checks)
    other = OneStepInference(one_of_three)
    other.__dict__.update({**vars(fitted), "_run": run_})
    text = str(other.diagnose())
    assert "No draw has a weight." in text and "No points could be moved" in text


@pytest.mark.parametrize(
    ("fallback", "diverged", "advised"),
    [(None, False, True), ("nuts", False, False), (None, True, False)],
)
def test_the_fallback_is_advised_where_it_was_not_there(fitted, fallback, diverged, advised):
    finished = fitted._run
    verdict = dataclasses.replace(finished.verdict, label="unreliable")
    history = dataclasses.replace(finished.fit.history, diverged=diverged)
    fit = dataclasses.replace(finished.fit, history=history)
    run_ = dataclasses.replace(finished, verdict=verdict, fit=fit)
    other = OneStepInference(one_of_three, fallback=fallback)
    other.__dict__.update({**vars(fitted), "_run": run_, "_fallback": fallback})
    use = section(other.diagnose(), "verdict: unreliable")
    assert use.startswith("Use neither the draws nor the evidence.")
    assert ('fallback="nuts"' in use) == advised


def test_before_a_run():
    with pytest.raises(RuntimeError, match="call `run` first"):
        OneStepInference(one_of_three).diagnose()
