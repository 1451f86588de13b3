"""More steps per draw where one does not suffice."""

import dataclasses
import math
import time

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import QUICK, run, stat
from scipy import stats

from numpyro_onestep.importance import ess
from numpyro_onestep.inference.few_steps import finish_in_enough_steps
from numpyro_onestep.objectives import StateConsistency, TargetScoreMatching

# Nothing here trains the whole interval as one step.
SHORT_STEPS = dataclasses.replace(
    QUICK, objectives=((1.0, TargetScoreMatching()), (1.0, StateConsistency())), num_updates=200
)


def bend():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    y = numpyro.sample("y", dist.Normal(0.0, 2.0))
    numpyro.sample("o", dist.Normal(y - x**2, 0.5), obs=0.5)


@pytest.fixture(scope="module")
def bent():
    return run(bend, options={"method": SHORT_STEPS})


def test_more_steps_are_taken_where_they_help(bent):
    assert bent.num_steps > 1
    assert bent.inference_data.attrs["num_steps"] == bent.num_steps
    assert any(f"takes {bent.num_steps} steps" in reason for reason in bent.verdict.reasons)
    one = bent.sample(jax.random.key(1), 4000, num_steps=1)
    share = stat(bent, "ess_importance") / len(bent.get_weighted_samples()[1])
    assert share > 1.5 * ess(one.log_weights, one.sign).fraction
    # Given x, the observation is normal.
    x = np.linspace(-8.0, 8.0, 4001)
    density = stats.norm.pdf(x) * stats.norm.pdf(0.5 + x**2, 0.0, math.hypot(2.0, 0.5))
    error = stat(bent, "log_evidence") - math.log(np.trapezoid(density, x))
    assert abs(error) < max(0.02, 4.0 * stat(bent, "log_evidence_se"))
    # Those of the result are what is drawn by default.
    options = ({}, {"num_steps": bent.num_steps})
    again, same = (bent.sample(jax.random.key(2), 500, **each) for each in options)
    np.testing.assert_array_equal(again.log_weights, same.log_weights)


def shares(bent, by_steps, *, label="usable_with_weights", then=None):
    """A stand-in for finishing: shares of effective draws by number of steps."""
    asked = []

    def finish(num_steps):
        asked.append(num_steps)
        checks = dataclasses.replace(
            bent._run.checks,
            ess_fraction=by_steps[num_steps],
            few_step_ess_fraction=by_steps.get(2 * num_steps, 0.0),
        )
        word = label if len(asked) == 1 else then or label
        verdict = dataclasses.replace(bent._run.verdict, label=word)
        return dataclasses.replace(bent._run, checks=checks, verdict=verdict)

    return finish, asked


def test_when_to_stop(bent):
    never = math.inf
    finish, asked = shares(bent, {1: 0.1, 2: 0.2, 4: 0.25, 8: 0.9})
    found, num_steps = finish_in_enough_steps(finish, 1, never)
    # No check promised half as many again for four steps.
    assert (num_steps, asked, found.checks.ess_fraction) == (2, [1, 2], 0.2)
    assert "in 1, 10 % of the draws were effective, now 20 %" in found.verdict.reasons[-1]
    # Nothing to mend.
    finish, asked = shares(bent, {1: 0.1, 2: 0.9}, label="reliable")
    assert finish_in_enough_steps(finish, 1, never)[1] == 1
    assert asked == [1]
    # More draws are effective, and the run is worse than it was.
    finish, asked = shares(bent, {1: 0.1, 2: 0.9}, then="unreliable")
    assert finish_in_enough_steps(finish, 1, never)[1] == 1
    assert asked == [1, 2]
    # What was unreliable is not mended by what is a little less so, but by what is reliable.
    finish, asked = shares(bent, {1: 0.001, 2: 0.1}, label="unreliable", then="usable_with_weights")
    assert finish_in_enough_steps(finish, 1, never)[1] == 1
    assert asked == [1, 2]
    finish, _ = shares(bent, {1: 0.001, 2: 0.1}, label="unreliable", then="reliable")
    assert finish_in_enough_steps(finish, 1, never)[1] == 2
    # No time.
    finish, asked = shares(bent, {1: 0.1, 2: 0.9})
    assert finish_in_enough_steps(finish, 1, time.perf_counter() - 1.0)[1] == 1
    # As many doublings as that.
    finish, asked = shares(bent, {2**i: 0.01 * 2**i for i in range(6)})
    assert finish_in_enough_steps(finish, 1, never)[1] == 16
    assert asked == [1, 2, 4, 8, 16]


def test_a_promise_that_is_not_kept_and_an_interrupt_leave_what_there_was(bent):
    checks = dataclasses.replace(bent._run.checks, ess_fraction=0.3, few_step_ess_fraction=0.9)
    verdict = dataclasses.replace(bent._run.verdict, label="unreliable")
    alike = dataclasses.replace(bent._run, checks=checks, verdict=verdict)
    found, num_steps = finish_in_enough_steps(lambda _: alike, 1, math.inf)
    assert num_steps == 1
    assert found is alike

    def finish(num_steps):
        if num_steps > 1:
            raise KeyboardInterrupt
        return alike

    assert finish_in_enough_steps(finish, 1, math.inf) == (alike, 1)


@pytest.mark.slow
def test_a_number_that_was_asked_for_stays(bent):
    asked = run(bend, options={"method": SHORT_STEPS, "num_steps": 1})
    assert asked.num_steps == 1
    assert stat(asked, "few_step_ess_fraction") > 1.5 * stat(asked, "ess_importance") / 8000
