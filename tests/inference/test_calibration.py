"""Simulation-based calibration through real fits: right where the model is, wrong where not.

With a right model all p-values together fall below 0.001 once in 1000 seeds; the seeds are fixed.
"""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from quick import QUICK

from numpyro_onestep import OneStepInference, simulation_based_calibration
from numpyro_onestep.calibration import simulation

KEY = jax.random.key(0)
GROUP = np.array([0, 0, 1, 1, 1])
Y = np.zeros(5)


def grouped(group, y=None, sd=1.0):
    """Two means; how many there are is read off the data, which no abstract array allows."""
    with numpyro.plate("group", int(group.max()) + 1):
        mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    numpyro.deterministic("difference", mean[1] - mean[0])
    with numpyro.plate("row", len(group)):
        numpyro.sample("y", dist.Normal(mean[group], sd), obs=y)


def wider(group, y=None):
    return grouped(group, y, sd=2.0)


@pytest.fixture(scope="module")
def inference():
    return OneStepInference(grouped, method=QUICK, num_samples=250)


@pytest.fixture(scope="module")
def right(inference):
    return simulation_based_calibration(inference, KEY, GROUP, y=Y, num_simulations=25)


@pytest.mark.slow
def test_a_right_model_passes(inference, right):
    assert right.p_value > 1e-3
    labels = ["difference", "mean[0]", "mean[1]", "lp"]
    assert list(right.table.index) == labels and (right.table["num_ranks"] >= 23).all()
    assert len(right.fits) == right.ranks.sizes["simulation"] == right.num_simulations == 25
    assert right.truths["mean"].dims == right.ranks["mean"].dims == ("simulation", "group")
    # The inference that lent its options is as it was.
    with pytest.raises(RuntimeError, match="call `run` first"):
        inference.print_summary()


@pytest.mark.slow
def test_truths_come_from_the_prior_and_evidences_from_the_data(right):
    mean = right.truths["mean"].to_numpy()
    assert np.abs(mean.mean(0)).max() < 4.5 * 2.0 / np.sqrt(25)
    np.testing.assert_allclose(right.truths["difference"], mean[:, 1] - mean[:, 0], rtol=1e-5)
    assert right.fits["log_evidence"].nunique() == 25
    assert (right.fits["log_evidence_se"] < 0.1).all()


@pytest.mark.slow
def test_data_of_another_spread_are_found_out(inference):
    """Errors are twice as wide as the model says: its posteriors are too narrow."""
    found = simulation_based_calibration(
        inference, KEY, GROUP, y=Y, num_simulations=40, simulator=wider
    )
    assert found.p_value < 1e-3
    assert (found.table["spread"][["mean[0]", "mean[1]", "difference"]] > 1.2).all()


def test_interruption_and_data_that_cannot_be_fitted(inference, monkeypatch):
    """What is finished is kept; a fit that fails has a row that says why."""
    calls = []
    errors = [
        ValueError("expected finite data; got others"),
        jax.errors.JaxRuntimeError("INTERNAL: callback failed"),
        KeyboardInterrupt(),
    ]

    def troubled(self, rng_key, *args):
        calls.append(rng_key)
        raise errors[len(calls) - 1]

    monkeypatch.setattr(OneStepInference, "refit", troubled)
    found = simulation_based_calibration(inference, KEY, GROUP, y=Y, num_simulations=9)
    assert len(calls) == 3 and list(found.fits["verdict"][1:]) == ["unreliable"] * 2
    assert list(found.fits["reasons"][1:]) == [str(error) for error in errors[:2]]
    assert np.isnan(found.ranks["mean"][1:]).all() and np.isfinite(found.ranks["mean"][0]).all()
    assert "3 simulations (interrupted; 9 asked for), 2 'unreliable' fits left out" in repr(found)


def test_interruption_of_the_training_of_a_fit(inference, monkeypatch):
    """The run itself keeps what it has; here it is no fit to be compared with the others."""

    class Interrupted:
        class history:
            stopped = "interrupted"

    def interrupted(self, rng_key, *args):
        self._fit = Interrupted

    monkeypatch.setattr(OneStepInference, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulation_based_calibration(inference, KEY, GROUP, y=Y)


def with_factor(group, y=None):
    grouped(group, y)
    numpyro.factor("penalty", -1.0)


@pytest.mark.parametrize(
    ("model", "data", "options", "message"),
    [
        (grouped, {}, {}, "expected arguments with which the model observes a site"),
        (with_factor, {"y": Y}, {}, "normalised.*factor statements 'penalty'"),
        (grouped, {"y": Y}, {"num_simulations": 1}, "expected num_simulations >= 2; got 1"),
        (
            grouped,
            {"y": Y},
            {"simulator": handlers.scope(grouped, prefix="other")},
            "expected a simulator with the site 'y' of shape .*none of that name",
        ),
    ],
    ids=["no data", "factor", "number", "simulator"],
)
def test_what_cannot_be_calibrated(model, data, options, message, monkeypatch):
    monkeypatch.setattr(simulation, "_fit", None)
    with pytest.raises(ValueError, match=message):
        simulation_based_calibration(OneStepInference(model), KEY, GROUP, **data, **options)
