"""Hard posteriors with a hardly trained map and one component: a rescue is right, or refused."""

import importlib
import sys
import warnings
from pathlib import Path

import pytest

from numpyro_onestep import ResampleMove

# One update, and no sampler of its own for any other mode: what a rescue must not be fooled by.
POOR = ResampleMove(
    width=16,
    num_blocks=2,
    num_points=500,
    num_updates=1,
    max_rounds=1,
    num_annealing=0,
    max_modes=1,
)
MODES = ("hidden_10", "label_switching", "multi_well", "gmm40", "weak_mixture", "spike_1")
SHAPES = ("funnel_matrix", "banana", "snake", "cauchy", "small_gamma", "horseshoe")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def adversarial():
    folder = str(Path(__file__).parents[1] / "examples" / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("adversarial")
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize("name", [*MODES, *SHAPES])
def test_right_or_refused(adversarial, name):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the verdict on this run")
        line = adversarial.run_one(adversarial.by_name(name), 0, num_samples=500, method=POOR)
    print(adversarial.table_line(line), *line["reasons"], sep="\n    - ")
    assert line["class"] in ("right", "refused"), line["reasons"]
