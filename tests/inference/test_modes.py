"""Posteriors with separate modes: all of them found, each with its weight; evidence to a truth.

Shares of draws are compared within 4.5 standard errors of that many independent ones or an absolute
limit, whichever is wider.
"""

import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import run, stat
from scipy.integrate import quad
from scipy.special import logsumexp

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "benchmarks"))

import densities  # noqa: E402


def hidden(distance):
    """A tenth of the mass at 0, the rest far away: no start of a chain leads there."""
    normals = dist.Normal(jnp.array([0.0, distance]), 1.0)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.array([0.1, 0.9])), normals))


def hidden_in_a_factor(distance, improper):
    """The same by `factor`, on a broad normal or with no prior at all."""
    if improper:
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
        log_prior = 0.0
    else:
        x = numpyro.sample("x", dist.Normal(0.0, 100.0))
        log_prior = dist.Normal(0.0, 100.0).log_prob(x)
    near = jnp.log(0.1) + dist.Normal(0.0, 1.0).log_prob(x)
    far = jnp.log(0.9) + dist.Normal(distance, 1.0).log_prob(x)
    numpyro.factor("f", jnp.logaddexp(near, far) - log_prior)


def symmetric(y):
    """The sign of x is not identified."""
    x = numpyro.sample("x", dist.Normal(0.0, 3.0))
    numpyro.sample("y", dist.Normal(x**2, 0.5), obs=y)


def switching(y):
    """Two components without an order."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    components = dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(mu, 1.0))
    numpyro.sample("y", components, obs=y)


def check_share(draws, share, within=0.05):
    """`draws` are booleans of the posterior group."""
    error = 4.5 * np.sqrt(share * (1.0 - share) / draws.size)
    assert abs(draws.mean() - share) < max(error, within)


@pytest.fixture(scope="module")
def far():
    return run(hidden, 30.0)


def test_hidden_mode(far):
    """Called `reliable` once, 2.3 nats off."""
    assert abs(stat(far, "log_evidence")) < 0.02
    check_share(np.asarray(far.get_samples()["x"]) > 15.0, 0.9)
    assert far.verdict.label != "unreliable"


def test_log_density_of_a_mixture(far):
    """That of the model, not that of a component."""
    x = np.asarray(far.get_samples(group_by_chain=True)["x"], np.float64)
    lp = far.get_extra_fields(group_by_chain=True)["lp"]
    expected = logsumexp([np.log(0.1) - 0.5 * x**2, np.log(0.9) - 0.5 * (x - 30.0) ** 2], axis=0)
    np.testing.assert_allclose(lp, expected - 0.5 * np.log(2 * np.pi), atol=1e-2)


def test_draws_of_a_mixture(far):
    """Fresh draws, in few steps, without weights; weights add up to the evidence."""
    for num_steps in (1, 2):
        fresh = far.sample(jax.random.key(1), 900, num_steps=num_steps)
        assert fresh.samples["x"].shape == fresh.log_weights.shape == (900,)
        assert abs(fresh.evidence.log_evidence) < 0.1
    plain = far.sample(jax.random.key(2), 900, weights=False)
    check_share(plain.samples["x"] > 15.0, 0.9)
    # Labels come at random: neither half of the draws has one mode only.
    halves = fresh.samples["x"].reshape(2, -1) > 15.0
    assert np.all(np.abs(halves.mean(1) - 0.9) < 0.1)


def test_a_mixture_pickles(far):
    again = pickle.loads(pickle.dumps(far))
    first, second = (i.sample(jax.random.key(3), 200).log_weights for i in (far, again))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("distance", [10.0, 30.0, 100.0])
@pytest.mark.parametrize("improper", [None, False, True])
def test_hidden_modes(distance, improper):
    model, args = (hidden, ()) if improper is None else (hidden_in_a_factor, (improper,))
    inference = run(model, distance, *args)
    check_share(np.asarray(inference.get_samples()["x"]) > 0.5 * distance, 0.9)
    if not improper:
        assert abs(stat(inference, "log_evidence")) < 0.02


@pytest.mark.slow
def test_sign_symmetry():
    y = np.array([4.1, 3.9, 4.0, 4.2])

    def density(x):
        log_likelihood = -0.5 * np.sum(((y - x**2) / 0.5) ** 2) - 4 * np.log(0.5)
        return np.exp(log_likelihood - 2 * np.log(2 * np.pi) - 0.5 * (x / 3) ** 2) / (
            3 * np.sqrt(2 * np.pi)
        )

    truth = np.log(2.0 * quad(density, 0.0, 10.0, points=[2.0])[0])
    inference = run(symmetric, y)
    assert abs(stat(inference, "log_evidence") - truth) < 0.05
    check_share(np.asarray(inference.get_samples()["x"]) > 0.0, 0.5)


@pytest.mark.slow
def test_label_switching():
    rng = np.random.default_rng(0)
    y = np.r_[rng.normal(-2, 1, 20), rng.normal(2, 1, 20)]
    grid = np.linspace(-6.0, 6.0, 601)
    each = -0.5 * (y[:, None] - grid) ** 2 - np.log(2.0 * np.sqrt(2 * np.pi))
    log_joint = np.logaddexp(each[:, :, None], each[:, None, :]).sum(0)
    prior = -0.5 * (grid / 5.0) ** 2 - np.log(5.0 * np.sqrt(2 * np.pi))
    log_joint = log_joint + prior[:, None] + prior
    truth = logsumexp(log_joint) + 2.0 * np.log(grid[1] - grid[0])
    inference = run(switching, y)
    assert abs(stat(inference, "log_evidence") - truth) < 0.05
    mu = np.asarray(inference.get_samples()["mu"])
    check_share(mu[:, 0] > mu[:, 1], 0.5)


@pytest.mark.slow
def test_forty_modes():
    means = np.random.default_rng(0).uniform(-40.0, 40.0, (40, 2))
    inference = run(densities.gaussian_mixture, jnp.asarray(means), options={"num_samples": 2000})
    assert abs(stat(inference, "log_evidence")) < 0.05
    samples, log_weights = inference.get_weighted_samples()
    x, weight = np.asarray(samples["x"]), np.exp(log_weights - log_weights.max())
    nearest = np.argmin(((x[:, None] - means) ** 2).sum(-1), axis=1)
    exact = means[:, None] + np.random.default_rng(1).normal(size=(40, 5000, 2))
    cell = np.argmin(((exact.reshape(-1, 1, 2) - means) ** 2).sum(-1), axis=1)
    share = np.bincount(cell, minlength=40) / cell.size
    # 32,000 draws: a share of 1/40 has a standard error of 3.5 %.
    found = np.bincount(nearest, weight, minlength=40) / weight.sum()
    assert np.all(np.abs(found - share) < 0.2 * share)


@pytest.mark.slow
def test_thirty_two_wells():
    inference = run(densities.multi_well, options={"num_samples": 4000})
    assert abs(stat(inference, "log_evidence") + 0.5411) < 0.05
    x = np.asarray(inference.get_samples()["x"]) > 0.0
    found = np.bincount(x @ (2 ** np.arange(5)), minlength=32) / len(x)
    assert np.all(np.abs(found * 32.0 - 1.0) < 0.2)


@pytest.mark.slow
def test_more_modes_than_anyone_can_count():
    """65,536 of them: right or refused."""
    inference = run(densities.many_well, warn=False)
    right = abs(stat(inference, "log_evidence") - 164.6957) < 0.5
    assert right or inference.verdict.label == "unreliable"
