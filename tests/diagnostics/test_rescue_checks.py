"""What a rescue must show, one failing number at a time."""

import dataclasses

import numpy as np
import pytest

from numpyro_onestep.diagnostics import (
    RescueChecks,
    Verdict,
    failed_sentence,
    failures,
    not_rescued,
    rescued,
)
from numpyro_onestep.importance import Bridge, evidence

HEALTHY = RescueChecks(
    coordinates="map",
    num_chains=16,
    num_draws=500,
    r_hat=1.004,
    ess_bulk=2500.0,
    ess_tail=2100.0,
    divergent_share=0.0,
    folded_share=0.0,
    missed_share=0.001,
    bridge=Bridge(-1.0, 0.02, 0.8, 2000.0),
    weighted=dataclasses.replace(evidence(np.full(100, -1.2)), se=0.1),
    num_gradients=200_000,
)
BEFORE = Verdict("unreliable", ("The weights have too heavy a tail.", "And folds."))


def test_healthy_chains_pass():
    assert failures(HEALTHY) == ()
    assert HEALTHY.mixes and not HEALTHY.is_hopeless
    verdict = rescued(BEFORE, HEALTHY)
    assert verdict.label == "rescued"
    assert "NUTS in the coordinates of the trained map" in verdict.reasons[0]
    for number in ("16 chains", "1.0040", "2500", "2100", "0.80"):
        assert number in verdict.reasons[0]
    assert verdict.reasons[1].endswith("unreliable: The weights have too heavy a tail.")
    assert verdict.reasons[2] == "And folds."


@pytest.mark.parametrize(
    "change, text",
    [
        ({"r_hat": 1.02}, "R-hat is 1.020"),
        ({"r_hat": float("nan")}, "R-hat is nan"),
        ({"ess_bulk": 399.0}, "worth 399 in the bulk"),
        ({"ess_tail": float("nan")}, "nan in the tails"),
        ({"divergent_share": 0.002}, "0.2 % of the transitions diverged"),
        ({"folded_share": 0.01}, "folds over at 1 %"),
        ({"missed_share": 0.05}, "found 5 % of the evidence"),
        ({"bridge": Bridge(-1.0, 0.3, 0.01, 10.0)}, "overlap 0.01"),
        ({"bridge": Bridge(float("nan"), float("inf"), 0.0, 0.0)}, "error of inf"),
        ({"weighted": dataclasses.replace(HEALTHY.weighted, log_evidence_known=-0.4)}, "-0.400"),
        ({"stopped": "time limit"}, "stopped early (time limit)"),
    ],
)
def test_every_check_can_fail(change, text):
    checks = dataclasses.replace(HEALTHY, **change)
    (found,) = failures(checks)
    assert text in found
    verdict = not_rescued(BEFORE, (failed_sentence(checks),))
    assert verdict.label == "unreliable" and text in verdict.reasons[-1]
    assert verdict.reasons[:2] == BEFORE.reasons


def test_less_evidence_in_the_weights_is_what_a_rescue_is_for():
    weighted = dataclasses.replace(HEALTHY.weighted, log_evidence_known=-5.0)
    assert failures(dataclasses.replace(HEALTHY, weighted=weighted)) == ()
