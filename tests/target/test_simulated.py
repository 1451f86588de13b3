"""Simulating data from models in which data feed data: nothing may be drawn given the old ones.

Tolerances are 4.5 standard errors of the draws: a right simulator fails once in 100,000 runs per
comparison.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan

from numpyro_onestep import OneStepInference
from numpyro_onestep.target import build_target, drawn_given_data, predictive_draws, prior_draws

NUM = 1000
LENGTH = 20
# A series that no draw of the models would ever be near to.
FAR = np.full(LENGTH, 40.0, np.float32)


def walk(y=None):
    """Each value from the one before, be it observed or not; sums of normal steps."""
    sd = numpyro.sample("sd", dist.LogNormal(0.0, 0.01))

    def step(before, observed):
        value = numpyro.sample("y", dist.Normal(before, sd), obs=observed)
        return value, None

    scan(step, 0.0, y, length=LENGTH)


def walk_on_data(y):
    """The same density, but what is handed on is the observed value."""
    sd = numpyro.sample("sd", dist.LogNormal(0.0, 0.01))

    def step(before, observed):
        numpyro.sample("y", dist.Normal(before, sd), obs=observed)
        return observed, None

    scan(step, 0.0, y)


def on_the_past(x, y):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("next", dist.Normal(slope * y[:-1] + x, 1.0), obs=y[1:])


def line(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


def branches(y):
    switch = numpyro.sample("switch", dist.Normal(0.0, 1.0))

    def one(observed):
        return numpyro.sample("y", dist.Normal(0.0, 1.0), obs=observed)

    def other(observed):
        return numpyro.sample("y", dist.Normal(5.0, 1.0), obs=observed)

    value = cond(switch > 0.0, one, other, y)
    numpyro.sample("after", dist.Normal(value, 0.1), obs=y)


def hidden(y):
    """Two states with levels far apart, summed out; the level is known, its noise is not."""
    noise = numpyro.sample("noise", dist.LogNormal(-2.0, 0.1))

    def step(state, observed):
        stay = jnp.array([[0.9, 0.1], [0.1, 0.9]])
        categorical = dist.Categorical(stay[state])
        state = numpyro.sample("state", categorical, infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(jnp.array([-3.0, 3.0])[state], noise), obs=observed)
        return state, None

    scan(step, 0, y)


def is_a_walk(drawn):
    steps = np.diff(drawn, axis=1, prepend=0.0)
    assert drawn.shape == (NUM, LENGTH)
    assert np.all(np.abs(steps.mean(0)) < 4.5 / np.sqrt(NUM))
    assert np.all(np.abs(steps.std(0) - 1.0) < 4.5 / np.sqrt(2 * NUM))
    # The last value is the sum of all steps.
    assert abs(drawn[:, -1].std() / np.sqrt(LENGTH) - 1.0) < 4.5 / np.sqrt(2 * NUM)


@pytest.mark.parametrize(
    "model",
    [walk, pytest.param(handlers.condition(walk, {"y": jnp.asarray(FAR)}), id="condition")],
)
def test_a_series_that_feeds_itself(model):
    arguments = {"y": FAR} if model is walk else {}
    target = build_target(jax.random.key(0), model, (), arguments)
    is_a_walk(prior_draws(target, jax.random.key(1), NUM)[1]["y"])
    is_a_walk(predictive_draws(target, jax.random.key(2), {"sd": np.ones(NUM)})["y"])
    assert drawn_given_data(target) == {}


def test_branches():
    """What comes after a branch follows from what it drew."""
    target = build_target(jax.random.key(0), branches, (jnp.float32(40.0),))
    latent, drawn = prior_draws(target, jax.random.key(1), NUM)
    expected = np.where(latent["switch"] > 0.0, 0.0, 5.0)
    assert abs(np.mean(drawn["y"] - expected)) < 4.5 / np.sqrt(NUM)
    assert np.abs(drawn["after"] - drawn["y"]).max() < 0.1 * 6.0


def test_hidden_states():
    """NumPyro draws none inside `scan` given the data; from the model it does."""
    target = build_target(jax.random.key(0), hidden, (FAR,))
    samples = {"noise": np.full(NUM, 0.1)}
    with pytest.raises(NotImplementedError, match=r"discrete sites \['state'\] given the data"):
        predictive_draws(target, jax.random.key(1), samples)
    drawn = predictive_draws(target, jax.random.key(1), samples, ((FAR,), {}))["y"]
    # One state in ten changes, and levels are 6 apart.
    changes = np.abs(np.diff(np.round(drawn / 3.0), axis=1)) > 0
    error = np.sqrt(0.1 * 0.9 / changes.size)
    assert drawn.shape == (NUM, LENGTH) and abs(changes.mean() - 0.1) < 4.5 * error


@pytest.mark.parametrize(
    ("model", "arguments", "expected"),
    [
        (walk_on_data, {"y": FAR}, {"y": ["'y'"]}),
        (on_the_past, {"x": 0.5, "y": FAR}, {"next": ["'y'"]}),
        (line, {"x": FAR, "y": FAR[::-1]}, {}),
        (hidden, {"y": FAR}, {}),
    ],
)
def test_data_that_enter_the_distribution_of_the_data(model, arguments, expected):
    target = build_target(jax.random.key(0), model, (), arguments)
    assert drawn_given_data(target) == expected


def test_without_the_data_nothing_is_given():
    target = build_target(jax.random.key(0), line, (FAR,), {"y": FAR})
    assert drawn_given_data(target, ((FAR[:3],), {})) == {}


def test_it_is_said():
    inference = OneStepInference(on_the_past)
    with pytest.warns(UserWarning, match="site 'next' are given its observed values.*data in 'y'"):
        inference.sample_prior(jax.random.key(0), 0.5, FAR, num_samples=10)
