"""Sampling until the draws are worth what was asked for, within limits."""

import dataclasses

import jax
import numpy as np
import pytest
from quick import QUICK, X, Y, line, run, stat

from numpyro_onestep.importance import ess
from numpyro_onestep.inference import run as run_module
from numpyro_onestep.inference_data import group_dataset


@pytest.fixture(scope="module")
def plain():
    return run(line, X, Y, options={"num_samples": 100})


def finished(plain, **options):
    """The same fit, drawn from again as the run did."""
    defaults = {"num_chains": 4, "num_samples": 100, "num_steps": 1, "posterior": "imh"}
    key = jax.random.key(0)
    keys = jax.random.fold_in(key, 2), jax.random.fold_in(key, 3)
    return run_module.finish(plain._fit, *keys, **{**defaults, **options})


def test_draws_are_added_until_they_are_worth_enough(plain):
    # 1600 raw draws to a batch, of which some tenths are effective.
    before = plain._run
    wanted = 2.5 * stat(plain, "ess_importance")
    found = finished(plain, target_ess=wanted)
    assert len(found.draws.log_weight) == 3 * len(before.draws.log_weight)
    assert found.scalar_stats["ess_importance"] >= wanted
    assert (
        found.scalar_stats["ess_importance"] == ess(found.draws.log_weight, found.draws.sign).count
    )
    np.testing.assert_array_equal(found.draws.x[:1600], before.draws.x)
    assert len(np.unique(found.draws.x, axis=0)) == len(found.draws.x)
    assert found.indices.shape == (4, 100)
    assert found.indices.max() >= 3200
    assert found.scalar_stats["log_evidence_se"] < before.scalar_stats["log_evidence_se"]
    assert not any("asked for" in reason for reason in found.verdict.reasons)


def test_enough_at_once_changes_nothing(plain):
    found = finished(plain, target_ess=10.0)
    np.testing.assert_array_equal(found.draws.log_weight, plain._run.draws.log_weight)
    assert found.verdict == plain.verdict


def test_a_shortfall_is_said(plain, monkeypatch):
    monkeypatch.setattr(run_module, "MAX_BATCHES", 2)
    found = finished(plain, target_ess=1e6)
    assert len(found.draws.log_weight) == 2 * 1600
    assert "1000000 were asked for, which 2 times the usual number" in found.verdict.reasons[-1]
    # As many draws that are enough end in the same verdict.
    enough = finished(plain, target_ess=1.5 * stat(plain, "ess_importance"))
    np.testing.assert_array_equal(enough.draws.log_weight, found.draws.log_weight)
    assert found.verdict.label == enough.verdict.label


def test_no_time_for_more(plain):
    found = finished(plain, target_ess=1e6, deadline=-np.inf)
    assert len(found.draws.log_weight) == 1600
    assert "sampling was stopped early (time limit)" in found.verdict.reasons[-1]


def test_through_the_facade(plain):
    method = dataclasses.replace(QUICK)
    options = {"num_samples": 100, "method": method, "target_ess": 2000.0}
    inference = run(line, X, Y, options=options)
    assert stat(inference, "ess_importance") >= 2000.0
    result = inference.inference_data
    assert group_dataset(result, "importance").sizes["importance_draw"] % 1600 == 0
    assert group_dataset(result, "posterior").sizes["draw"] == 100
