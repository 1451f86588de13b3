"""A loc-scale site that is worked with in other coordinates: nobody can tell from the outside."""

import functools
import pickle

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive, log_likelihood
from numpyro.infer.util import potential_energy
from quick import EFFECT, ERROR, run, stat

from numpyro_onestep import OneStepInference
from numpyro_onestep.inference_data import group_dataset, group_names

# The coordinates themselves are tested in `target/test_recentred.py`.
pytestmark = pytest.mark.slow

NAMES = ["Choate", "Deerfield", "Phillips"]


def centred(error, effect=None):
    """The hierarchy of `quick.schools`, centred."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(5.0))
    with numpyro.plate("school", len(error)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.deterministic("doubled", 2.0 * theta)
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)


def truth(error, effect):
    """Log evidence by quadrature over log tau; mu integrates out of independent normals."""
    log_tau = np.linspace(-12.0, 4.0, 4001)
    tau = np.exp(log_tau)
    spread = tau[:, None] ** 2 + error**2
    precision, total = (1.0 / spread).sum(1), (effect / spread).sum(1)
    log_joint = -0.5 * (np.log(2.0 * np.pi * spread) + effect**2 / spread).sum(1)
    log_joint += 0.5 * total**2 / (precision + 0.04) - 0.5 * np.log1p(25.0 * precision)
    log_joint += 0.5 * np.log(2.0 / np.pi) - np.log(5.0) - 0.5 * (tau / 5.0) ** 2 + log_tau
    top = log_joint.max()
    return float(top + np.log(np.trapezoid(np.exp(log_joint - top), log_tau)))


@pytest.fixture(scope="module")
def fitted():
    return run(centred, ERROR, effect=EFFECT, options={"coords": {"school": NAMES}})


def test_the_site_is_worked_with_in_other_coordinates(fitted):
    """Or this file tests nothing."""
    assert np.max(fitted._fit.trained.centredness["theta"]) < 0.5
    assert stat(fitted, "ess_importance") > 0.8 * 8000


def test_evidence(fitted):
    error = abs(stat(fitted, "log_evidence") - truth(ERROR, EFFECT))
    # Five standard errors: one failure in two million.
    assert error < 5.0 * stat(fitted, "log_evidence_se") < 0.05


def test_names_and_dimensions(fitted):
    result = fitted.inference_data
    everything = str([group_dataset(result, group) for group in group_names(result)])
    assert "decentered" not in everything and "_base" not in everything
    posterior = group_dataset(result, "posterior")
    assert set(posterior.data_vars) == {"mu", "tau", "theta", "doubled"}
    assert posterior["theta"].dims == ("chain", "draw", "school")
    assert list(posterior["school"].to_numpy()) == NAMES
    assert set(fitted.get_samples()) == set(posterior.data_vars)
    weighted, log_weight = fitted.get_weighted_samples()
    assert set(weighted) == set(posterior.data_vars) and log_weight.shape == (8000,)
    np.testing.assert_allclose(2.0 * posterior["theta"], posterior["doubled"], rtol=1e-6)
    assert set(az.from_numpyro(fitted)["posterior"].data_vars) == set(posterior.data_vars)
    data = group_dataset(result, "observed_data")
    assert set(data.data_vars) == {"effect"}


def test_lp_is_that_of_the_users_model(fitted):
    """NumPyro's own potential at the draws, in the coordinates that NUTS would have."""
    draws = {name: value[:200] for name, value in fitted.get_samples().items()}
    sites = {"mu": draws["mu"], "tau": jnp.log(draws["tau"]), "theta": draws["theta"]}
    potential = functools.partial(potential_energy, centred, (ERROR,), {"effect": EFFECT})
    wanted = -jax.vmap(potential)(sites)
    fields = fitted.get_extra_fields()
    np.testing.assert_allclose(fields["lp"][:200], wanted, rtol=1e-4, atol=1e-3)
    run_draws = fitted._run.draws
    np.testing.assert_allclose(
        fields["lp"] - fields["log_q"], run_draws.log_weight[fitted._run.indices].reshape(-1)
    )
    # The target that a run leaves is the user's, and its points are those of the draws.
    target = fitted.last_target
    np.testing.assert_allclose(
        jax.vmap(target.log_density)(jnp.asarray(run_draws.x[:50])),
        run_draws.log_density[:50],
        rtol=1e-3,
        atol=1e-2,
    )
    # log w = log gamma + log|det| - log N(z): the same in all coordinates.
    log_base = run_draws.log_density + run_draws.log_det - run_draws.log_weight
    assert np.all(log_base < -0.5 * 5 * np.log(2.0 * np.pi) + 1e-3)


def test_predictions(fitted):
    draws = Predictive(centred, fitted.get_samples())(jax.random.key(1), ERROR)
    assert draws["effect"].shape == (2000, 3)
    wanted = log_likelihood(centred, fitted.get_samples(), ERROR, effect=EFFECT)["effect"]
    found = group_dataset(fitted.inference_data, "log_likelihood")["effect"].to_numpy()
    np.testing.assert_allclose(found.reshape(-1, 3), wanted, rtol=1e-4, atol=1e-4)
    result = fitted.sample_posterior_predictive(jax.random.key(2))
    result = fitted.sample_prior(jax.random.key(3), num_samples=50)
    assert set(group_dataset(result, "posterior_predictive").data_vars) == {"effect"}
    assert set(group_dataset(result, "prior").data_vars) == {"mu", "tau", "theta", "doubled"}


def test_new_draws(fitted):
    plain = fitted.sample(jax.random.key(4), 300, weights=False).samples
    weighed = fitted.sample(jax.random.key(4), 300)
    assert set(plain) == set(weighed.samples) == {"mu", "tau", "theta", "doubled"}
    np.testing.assert_allclose(plain["doubled"], 2.0 * plain["theta"], rtol=1e-6)
    error = abs(weighed.evidence.log_evidence - truth(ERROR, EFFECT))
    assert error < 5.0 * weighed.evidence.se


def test_saved_and_pickled(fitted, tmp_path):
    fitted.save(tmp_path / "centred.onestep")
    loaded = OneStepInference.load(tmp_path / "centred.onestep", centred)
    for other in (loaded, pickle.loads(pickle.dumps(fitted))):
        one, two = (i.sample(jax.random.key(5), 400) for i in (fitted, other))
        np.testing.assert_array_equal(one.log_weights, two.log_weights)
        np.testing.assert_array_equal(one.samples["theta"], two.samples["theta"])


def test_refit_compiles_nothing(fitted, caplog):
    before = fitted._fit, fitted._run, fitted._result
    effect = EFFECT[::-1].copy()
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        fitted.refit(jax.random.key(6), ERROR, effect=effect)
    assert not [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]
    error = abs(stat(fitted, "log_evidence") - truth(ERROR, effect))
    assert error < 5.0 * stat(fitted, "log_evidence_se") < 0.05
    fitted._fit, fitted._run, fitted._result = before


def two_modes(y):
    """The sign of `x` is not identified; the effects depend on a scale."""
    x = numpyro.sample("x", dist.Normal(0.0, 3.0))
    tau = numpyro.sample("tau", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("n", 2):
        numpyro.sample("theta", dist.Normal(0.0, tau))
    numpyro.sample("y", dist.Normal(x**2, 0.5), obs=y)


def test_separate_modes():
    """Components of a recentred target: effects without data integrate out."""
    fitted = run(two_modes, 4.0)
    assert len(fitted._fit.trained.components) == 2
    assert np.max(fitted._fit.trained.centredness["theta"]) < 0.5
    x = np.linspace(-6.0, 6.0, 20001)
    density = np.exp(-0.5 * (x / 3.0) ** 2 - 0.5 * ((4.0 - x**2) / 0.5) ** 2)
    wanted = np.log(np.trapezoid(density, x) / (2.0 * np.pi * 3.0 * 0.5))
    assert abs(stat(fitted, "log_evidence") - wanted) < 5.0 * stat(fitted, "log_evidence_se") < 0.05
    draws = fitted.get_samples()
    assert set(draws) == {"x", "tau", "theta"}
    # Scaled back they are standard normal, in both modes.
    raw = np.asarray(draws["theta"] / draws["tau"][:, None])
    assert abs(raw.std() - 1.0) < 0.15 and abs(np.mean(draws["x"] > 0.0) - 0.5) < 0.1
