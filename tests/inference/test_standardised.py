"""Runs with values standardised given all others, against quadrature: fit, file, refit, NUTS."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from quick import run
from scipy import stats
from scipy.special import logsumexp

from numpyro_onestep import OneStepInference
from numpyro_onestep.exploration import choose_conditional
from numpyro_onestep.target import build_target, starting_points

NUM = 30
QUANTILES = (0.01, 0.05, 0.5, 0.95)


def measured(y):
    """Values measured with an error that may be zero: all of them are pinned to y then."""
    error = numpyro.sample("error", dist.HalfNormal(0.5))
    with numpyro.plate("n", NUM):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x, error), obs=y)


def data(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(0.0, 1.05, NUM), jnp.float32)


def truth(y):
    """Log evidence, and quantiles of the error, with x integrated out."""
    grid = np.linspace(0.0, 4.0, 40_001)[1:]
    log_p = stats.halfnorm(scale=0.5).logpdf(grid)
    log_p += stats.norm(0.0, np.sqrt(1.0 + grid[:, None] ** 2)).logpdf(np.asarray(y)).sum(1)
    share = np.exp(log_p - log_p.max())
    places = np.searchsorted(np.cumsum(share) / share.sum(), QUANTILES)
    return logsumexp(log_p) + np.log(grid[1] - grid[0]), grid[places]


def assert_right(inference, y):
    log_z, quantiles = truth(y)
    result = inference.inference_data
    se = float(result["sample_stats"]["log_evidence_se"])
    assert inference.verdict.label == "reliable", inference.verdict.reasons
    assert se < 0.005
    assert abs(float(result["sample_stats"]["log_evidence"]) - log_z) < 3.0 * se
    error = np.asarray(result["posterior"]["error"]).ravel()
    found = (error[:, None] < quantiles).mean(0)
    allowed = 4.0 * np.sqrt(np.multiply(QUANTILES, 1.0 - np.array(QUANTILES)) / 2000)
    assert (np.abs(found - QUANTILES) < allowed).all(), found


@pytest.mark.slow
def test_a_neck_of_pinned_values(tmp_path):
    y = data(0)
    inference = OneStepInference(measured, progress_bar=False)
    inference.run(jax.random.key(0), y)
    assert inference._fit.trained.conditional.sites == ("x",)
    assert_right(inference, y)
    assert "the values of 'x' are standardised" in str(inference.diagnose())
    gradients = float(inference.inference_data["training"]["num_target_gradients"])
    assert gradients == 12 * inference._fit.history.num_gradients
    # A file holds what was standardised.
    inference.save(tmp_path / "fit.zip")
    again = OneStepInference.load(tmp_path / "fit.zip", measured)
    draws, others = (i.sample(jax.random.key(1), 200) for i in (inference, again))
    np.testing.assert_array_equal(draws.log_weights, others.log_weights)
    np.testing.assert_array_equal(draws.samples["x"], others.samples["x"])
    # NUTS in its coordinates.
    neutra = inference.neutra()
    mcmc = MCMC(NUTS(neutra.reparam(measured)), num_warmup=200, num_samples=1000)
    mcmc.run(jax.random.key(2), y)
    assert mcmc.get_extra_fields()["diverging"].mean() < 0.01
    exact = truth(y)[1][2]
    assert abs((mcmc.get_samples()["error"] < exact).mean() - 0.5) < 0.08
    # Other data, the same coordinates.
    inference.refit(jax.random.key(3), data(1))
    assert_right(inference, data(1))


@pytest.mark.slow
def test_a_quick_run_explores_again_in_those_coordinates():
    y = data(0)
    inference = run(measured, y)
    assert inference._fit.trained.conditional.sites == ("x",)
    result = inference.inference_data
    found, se = (float(result["sample_stats"][n]) for n in ("log_evidence", "log_evidence_se"))
    assert abs(found - truth(y)[0]) < 4.0 * se + 0.01
    assert float(result["sample_stats"]["ess_importance"]) > 1000.0
    # Draws are those of the user's sites.
    posterior = result["posterior"]
    assert set(posterior.data_vars) == {"error", "x"}
    near = np.asarray(posterior["error"]).ravel() < 0.05
    apart = np.asarray(posterior["x"]).reshape(-1, NUM)[near] - np.asarray(y)
    assert near.any() and np.abs(apart).max() < 0.3


def exploration(**changes):
    """What an exploration of the model has found, as far as the choice looks at it."""
    particles = SimpleNamespace(
        points=np.asarray(starting_points(TARGET, jax.random.key(0), 32)),
        log_density=np.zeros(32),
        temperature=1.0,
    )
    found = {"particles": particles, "modes": (SimpleNamespace(spread=0.5),)}
    found |= {"stopped": "", "diverged": False, "too_many": False}
    return SimpleNamespace(**{**found, **changes})


TARGET = build_target(jax.random.key(0), measured, (data(0),))


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, True),
        ({"modes": (SimpleNamespace(spread=0.1),)}, False),
        ({"modes": (SimpleNamespace(spread=np.nan),)}, False),
        ({"modes": (SimpleNamespace(spread=0.5),) * 2}, True),
        ({"stopped": "time limit"}, False),
        ({"diverged": True}, False),
        ({"too_many": True}, False),
    ],
)
def test_where_nothing_is_to_be_gained_nothing_is_looked_at(changes, chosen):
    given, num_gradients = choose_conditional(TARGET, exploration(**changes))
    assert (given is not None) == chosen
    assert (num_gradients > 0) == chosen


def test_particles_on_their_way_and_without_a_density_say_nothing():
    found = exploration()
    found.particles.temperature = 0.5
    assert choose_conditional(TARGET, found) == (None, 0)
    found.particles.temperature = 1.0
    found.particles.log_density[:] = -np.inf
    assert choose_conditional(TARGET, found) == (None, 0)
