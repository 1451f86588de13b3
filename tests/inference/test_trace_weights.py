"""Published trace weights are stored beside the exact ones, and change nothing else."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import QUICK, line, run, stat

from numpyro_onestep import DIS, OSDS, OneStepInference, TraceLogDet

METHOD = OSDS(
    width=8,
    depth=1,
    num_path_steps=4,
    num_points=300,
    num_updates=5,
    max_rounds=1,
    num_annealing=0,
    num_starts=1,
)


def normal():
    numpyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1))


@pytest.mark.slow
def test_stored_beside_the_exact_weights():
    options = {"method": METHOD, "trace_weights": TraceLogDet(), "num_samples": 100}
    inference = run(normal, warn=True, options=options)
    weights = inference.inference_data["importance"]
    assert weights["trace_log_weight"].shape == weights["log_weight"].shape
    assert np.isfinite(weights["trace_log_weight"]).all()
    # Nothing to learn, so both nearly agree here; they are not the same numbers.
    assert stat(inference, "log_evidence") == pytest.approx(0.0, abs=0.1)
    assert stat(inference, "trace_log_evidence") == pytest.approx(0.0, abs=0.5)
    assert np.abs(weights["trace_log_weight"] - weights["log_weight"]).max() > 1e-4


def test_not_there_unless_asked_for():
    inference = run(normal, options={"method": QUICK})
    assert "trace_log_weight" not in inference.inference_data["importance"]


def test_a_stochastic_sampler_has_none():
    with pytest.raises(ValueError, match="expected no trace_weights for a stochastic sampler"):
        OneStepInference(line, method=DIS(), trace_weights=TraceLogDet())


def test_steps_of_the_method_by_default():
    assert OneStepInference(line).num_steps == 1
    assert OneStepInference(line, method=DIS(num_path_steps=12)).num_steps == 12
    assert OneStepInference(line, method=DIS(), num_steps=8).num_steps == 8


def test_a_multi_step_sampler_through_the_facade():
    """Draws, weights, verdict and coverage of a stochastic sampler."""
    method = DIS(
        width=8,
        depth=1,
        num_path_steps=8,
        num_points=300,
        num_updates=20,
        max_rounds=2,
        num_annealing=1,
        num_starts=2,
    )
    inference = run(normal, warn=True, options={"method": method, "num_samples": 250})
    assert abs(stat(inference, "log_evidence")) < 5.0 * stat(inference, "log_evidence_se")
    more = inference.sample(jax.random.key(5), 200, weights=False)
    assert more.samples["x"].shape == (200, 3)
