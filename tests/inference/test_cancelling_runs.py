"""Runs of models whose log-density single precision cannot compute everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counts import COUNTS, counts, evidence_of_counts
from numpy.testing import assert_array_equal
from quick import run, stat

from numpyro_onestep import OneStepInference
from numpyro_onestep.inference.checking import imprecise_share
from numpyro_onestep.inference.drawing import WeightedDraws
from numpyro_onestep.target import build_target


@pytest.fixture(scope="module")
def fitted():
    return run(counts, COUNTS)


def test_the_evidence_is_right_and_a_note_says_how(fitted):
    """It was thousands of nats too high."""
    assert stat(fitted, "log_evidence") == pytest.approx(evidence_of_counts(), abs=0.05)
    assert fitted.verdict.label != "unreliable"
    assert any("computed in double precision" in reason for reason in fitted.verdict.reasons)
    posterior = fitted.inference_data["posterior"]
    assert posterior["mean"].dtype == np.float32 and not jax.config.jax_enable_x64


def test_it_stays_so_in_a_file(fitted, tmp_path):
    fitted.save(tmp_path / "counts.onestep")
    loaded = OneStepInference.load(tmp_path / "counts.onestep", counts)
    one, other = (i.sample(jax.random.key(1), 500, weights=True) for i in (fitted, loaded))
    assert_array_equal(one.log_weights, other.log_weights)
    assert np.isfinite(one.evidence.log_evidence)


def test_and_in_a_refit(fitted):
    fitted.refit(jax.random.key(2), jnp.asarray(COUNTS[::-1].copy()))
    assert stat(fitted, "log_evidence") == pytest.approx(evidence_of_counts(), abs=0.05)


@pytest.mark.parametrize("log_size, expected", [(3.0, 0.0), (16.5, 1.0)])
def test_the_share_of_weights_made_up_by_rounding(log_size, expected):
    """Ten draws of equal weight where single precision serves, or where it does not."""
    target = build_target(jax.random.key(0), counts, (COUNTS,))
    places = target.site_slices["concentration"].start
    x = np.full((10, 2), 1.0, np.float32)
    x[:, places] = np.linspace(log_size, log_size + 0.1, 10)
    log_density = np.asarray(jax.vmap(target.log_density)(x), np.float64)
    # Whatever the map did: weights as if every place had been drawn as often as it deserves.
    zeros, signs = np.zeros(10), np.ones(10)
    draws = WeightedDraws(x, log_density, zeros, signs, zeros)
    assert imprecise_share(target, draws) == pytest.approx(expected, abs=0.1)
