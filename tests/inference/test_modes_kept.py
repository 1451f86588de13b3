"""A sampler with one component per mode: kept in a file, refitted, weighed by traces too."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_array_equal
from quick import run, stat
from scipy.special import logsumexp

from numpyro_onestep import OneStepInference, TraceLogDet, compare_evidence
from numpyro_onestep.inference_data import group_dataset, group_names
from numpyro_onestep.training import TrainedMixture

KEY = jax.random.key(5)
SHARES = np.array([0.3, 0.7])
PLACES = np.array([-8.0, 8.0])


def two_places(y, shift):
    """A known mixture as prior, one observation: two normals with known shares and evidence."""
    prior = dist.MixtureSameFamily(dist.Categorical(SHARES), dist.Normal(jnp.array(PLACES), 1.0))
    x = numpyro.sample("x", prior)
    spin = numpyro.sample("spin", dist.Normal(0.0, 1.0))
    numpyro.deterministic("turned", x + spin)
    numpyro.sample("y", dist.Normal(0.02 * x + shift, 0.5), obs=y)


def truth(y, shift):
    """Log evidence and share of the right mode: each component is conjugate."""
    sd = np.hypot(0.5, 0.02)
    log_z = np.log(SHARES) - 0.5 * ((y - 0.02 * PLACES - shift) / sd) ** 2
    log_z -= np.log(sd * np.sqrt(2.0 * np.pi))
    return logsumexp(log_z), np.exp(log_z[1] - logsumexp(log_z))


def check(inference, y, shift):
    """Evidence and share of the mode on the right against the closed form."""
    log_evidence, share = truth(y, shift)
    error = abs(stat(inference, "log_evidence") - log_evidence)
    assert error <= max(4.0 * stat(inference, "log_evidence_se"), 5e-3)
    found = np.mean(np.asarray(inference.get_samples()["x"]) > 0.0)
    assert abs(found - share) < max(4.5 * np.sqrt(share * (1.0 - share) / 2000), 0.03)
    assert len(inference._fit.trained.components) == 2


Y, SHIFT = np.array(0.3), np.array(0.1)


@pytest.fixture(scope="module")
def fitted():
    return run(two_places, Y, SHIFT, options={"trace_weights": TraceLogDet()})


@pytest.fixture(scope="module")
def path(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "modes.onestep"
    fitted.save(path)
    return path


@pytest.fixture(scope="module")
def loaded(path):
    return OneStepInference.load(path, two_places)


def test_two_components(fitted):
    check(fitted, Y, SHIFT)
    assert isinstance(fitted._fit.trained, TrainedMixture)


def test_trace_weights_of_a_mixture(fitted):
    """In the order of the draws and with the shares of the labels: near the exact ones."""
    weights = group_dataset(fitted.inference_data, "importance")
    exact, trace = (weights[n].to_numpy() for n in ("log_weight", "trace_log_weight"))
    right = weights["x"].to_numpy() > 0.0
    # Exact weights vary by a part of one per cent, so the bias of the trace is what differs; an
    # order of its own or missing shares would show as log(0.7 / 0.3) = 0.85 between the modes.
    for mode in (right, ~right):
        assert np.median(np.abs(trace - exact)[mode]) < 0.2
    assert abs(stat(fitted, "trace_log_evidence") - stat(fitted, "log_evidence")) < 0.2


def test_everything_comes_back_from_a_file(fitted, loaded):
    assert group_names(loaded.inference_data) == group_names(fitted.inference_data)
    for name in group_names(fitted.inference_data):
        one, other = (group_dataset(i.inference_data, name) for i in (fitted, loaded))
        assert one.identical(other), name
    assert loaded.verdict == fitted.verdict
    ours, theirs = fitted._fit.trained, loaded._fit.trained
    assert_array_equal(ours.log_share, theirs.log_share)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert_array_equal(one, other)
    table = compare_evidence({"before": fitted, "after": loaded}).table
    assert table["log_bayes_factor"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("options", [{}, {"num_steps": 2}, {"weights": False}], ids=str)
def test_the_same_key_gives_the_same_draws(fitted, loaded, options):
    ours, theirs = (i.sample(KEY, 700, **options) for i in (fitted, loaded))
    for name in ours.samples:
        assert_array_equal(ours.samples[name], theirs.samples[name])
    if ours.log_weights is not None:
        assert_array_equal(ours.log_weights, theirs.log_weights)
    share = truth(Y, SHIFT)[1]
    assert abs(np.mean(ours.samples["x"] > 0.0) - share) < 0.1


def test_saving_again_writes_the_same(path, loaded):
    again = path.with_name("again.onestep")
    loaded.save(again)
    twice = OneStepInference.load(again, two_places)
    assert_array_equal(twice.sample(KEY, 50).log_weights, loaded.sample(KEY, 50).log_weights)


def test_predictions_from_both_modes(loaded):
    drawn = loaded.sample_posterior_predictive(KEY)
    y, x = (
        group_dataset(drawn, g)[n] for g, n in (("posterior_predictive", "y"), ("posterior", "x"))
    )
    noise = (y - 0.02 * x - SHIFT).to_numpy()
    assert abs(noise.mean()) < 4.5 * 0.5 / np.sqrt(noise.size)
    mean = loaded.expectation(lambda sites: sites["x"] > 0.0)
    assert abs(mean.value - truth(Y, SHIFT)[1]) < max(4.5 * mean.mcse, 1e-3)


def test_refit_of_a_loaded_mixture(path, caplog):
    """Other data, other shares, the same two modes; then data that leave one mode alone."""
    inference = OneStepInference.load(path, two_places)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the verdict on this run")
        inference.refit(KEY, np.array(-0.6), np.array(0.0))
    check(inference, -0.6, 0.0)
    assert np.isfinite(stat(inference, "trace_log_evidence"))
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the verdict on this run")
            inference.refit(KEY, np.array(0.8), np.array(0.2))
    assert not [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]
    check(inference, 0.8, 0.2)


def test_refit_to_one_mode_and_back(path):
    """The number of components follows the data."""

    def share(y):
        return np.mean(np.asarray(inference.get_samples()["x"]) > 0.0)

    inference = OneStepInference.load(path, two_places)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the verdict on this run")
        # The mode on the left keeps a share of 4e-6.
        inference.refit(KEY, np.array(9.0), np.array(0.0))
        assert len(inference._fit.trained.components) == 1
        assert abs(stat(inference, "log_evidence") - truth(9.0, 0.0)[0]) < 0.02
        inference.refit(KEY, Y, SHIFT)
    check(inference, Y, SHIFT)
