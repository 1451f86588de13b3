"""The reference posteriors: their sizes, and their truths against independent computations."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import numpyro
import pytest
from numpyro.handlers import seed, trace
from scipy import stats

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks():
    """Imports a module of the benchmarks' folder by name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


def test_dimensions(benchmarks):
    skipped = []
    for row in benchmarks("suite").ROWS:
        try:
            arguments = row.load(None)
        except FileNotFoundError as error:
            assert "--data-dir" in str(error)
            skipped.append(row.name)
            continue
        # No site of the suite changes its size when it is unconstrained.
        with numpyro.validation_enabled(is_validate=False):  # vague priors draw extreme values
            sites = trace(seed(row.model, jax.random.key(0))).get_trace(**arguments).values()
        latent = [s for s in sites if s["type"] == "sample" and not s["is_observed"]]
        assert sum(np.size(s["value"]) for s in latent) == row.dim, row.name
    assert set(skipped) <= {
        "german_credit",
        "german_credit_flat",
        "ionosphere",
        "sonar",
        "cox_process",
    }


def test_conjugate_evidence_is_that_of_the_marginal_t(benchmarks):
    suite, data = benchmarks("suite"), benchmarks("data")
    prior, arrays = data.CONJUGATE_PRIOR, data.conjugate()
    x, a, b = arrays["x"], prior["shape"], prior["rate"]
    scale = b / a * (np.eye(len(x)) + prior["prior_scale"] ** 2 * x @ x.T)
    marginal = stats.multivariate_t(np.zeros(len(x)), scale, df=2.0 * a).logpdf(arrays["y"])
    assert suite.conjugate_truth(**arrays, **prior)[0] == pytest.approx(marginal, abs=1e-8)


def test_long_run_agrees_with_the_conjugate_posterior(benchmarks):
    suite, data = benchmarks("suite"), benchmarks("data")
    sites = benchmarks("reference").load("conjugate_regression")["sites"]
    _, moments = suite.conjugate_truth(**data.conjugate(), **data.CONJUGATE_PRIOR)
    # 24 numbers, five standard errors each: the seed is fixed, a failure means a wrong number.
    for name, (mean, sd) in moments.items():
        site = {k: np.asarray(v) for k, v in sites[name].items()}
        assert np.all(np.abs(site["mean"] - mean) < 5.0 * site["mean_mcse"])
        assert np.all(np.abs(site["sd"] - sd) < 5.0 * site["sd_mcse"])


def test_quadrature_of_eight_schools(benchmarks):
    log_z, error = benchmarks("reference").quadrature()
    assert error < 1e-8
    for name in ("eight_schools", "eight_schools_centred"):
        assert benchmarks("suite").by_name(name).log_z == pytest.approx(log_z, abs=1e-4)
