"""The examples, executed as the README says, only smaller."""

import importlib.util
from pathlib import Path

import arviz as az
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def eight_schools(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eight_schools")
    options = ["--num-samples", "250", "--output-dir", str(folder / "new")]
    return load("eight_schools").main(options), folder / "new"


def test_eight_schools_writes_what_it_says(eight_schools):
    _, folder = eight_schools
    assert (folder / "eight_schools.png").read_bytes().startswith(b"\x89PNG")
    stored = az.from_netcdf(folder / "eight_schools.nc")
    posterior = stored["posterior"]
    assert {name: posterior[name].shape for name in posterior.data_vars} == {
        "mu": (4, 250),
        "tau": (4, 250),
        "eta": (4, 250, 8),
        "theta": (4, 250, 8),
    }
    # k-hat of so few draws can fall on either side of the bound between these two.
    assert stored.attrs["verdict"] in ("reliable", "usable_with_weights")


def test_eight_schools_is_right(eight_schools):
    inference, _ = eight_schools
    stats = inference.inference_data["sample_stats"]
    # Truth by quadrature; four standard errors fail once in 16,000 seeds, and the seed is fixed.
    error = abs(float(stats["log_evidence"]) + 31.3113)
    assert error < 4.0 * float(stats["log_evidence_se"]) < 0.1
    # 1000 draws: four standard errors of the mean of independent draws are 0.13 sd.
    mu = np.asarray(inference.get_samples()["mu"])
    assert abs(mu.mean() - 4.40) < 0.2 * mu.std()
