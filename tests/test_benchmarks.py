"""The reference posteriors: their sizes, and their truths against independent computations."""

import dataclasses
import importlib
import json
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


@pytest.mark.slow
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


def test_kinds_of_models_and_their_page(benchmarks, tmp_path):
    """At least twenty kinds; kept runs become a table, the last run of a kind counts."""
    tutorials = benchmarks("tutorials")
    names = [kind.name for kind in tutorials.KINDS]
    assert len(set(names)) == len(names) >= 20
    for kind in tutorials.KINDS:
        one, other = kind.load(), kind.load()
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    failed = {"name": "linear", "error": "ValueError: expected data", "seconds": 1.0}
    fine = {
        "name": "linear",
        "error": "",
        "seconds": 2.0,
        "dim": 4,
        "draws": 16000,
        "verdict": "usable_with_weights",
        "reasons": [],
        "note": "",
        "log_evidence": -40.12345,
        "log_evidence_se": 0.00123,
        "pareto_k": 0.3,
        "ess_importance": 15000.0,
    }
    page, kept = tmp_path / "page.md", tmp_path / "kept.jsonl"
    page.write_text(f"before\n{tutorials.BEGIN}\nold\n{tutorials.END}\nafter\n")
    kept.write_text("\n".join(map(json.dumps, (failed, fine, {**failed, "name": "funnel"}))))
    tutorials.main(["--output", str(kept), "--page", str(page)])
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    assert "| usable with weights | -40.123 +- 0.0012 | 0.94 | 0.30 |" in text
    assert text.count("ValueError: expected data") == 1 and text.count("| linear |") == 1


@pytest.mark.slow
def test_a_run_of_one_kind_and_an_error(benchmarks):
    """What the program keeps of a run; an error is a finding, not the end."""
    tutorials = benchmarks("tutorials")
    line = tutorials.run_one(tutorials.by_name("proportions"), 0)
    assert line["error"] == "" and line["dim"] == 2 and line["verdict"] == "reliable"
    json.dumps(line)
    arguments = tutorials.by_name("proportions").load()
    grid = np.linspace(-4.0, 4.0, 401)
    a, b = np.meshgrid(grid, 0.5 * grid, indexing="ij")
    log_p = stats.norm(0.0, 1.0).logpdf(a) + stats.norm(0.0, 0.5).logpdf(b)
    for treated in (0.0, 1.0):
        clicked = arguments["clicked"][arguments["treated"] == treated]
        logits = a + treated * b
        log_p += clicked.sum() * logits - len(clicked) * np.logaddexp(0.0, logits)
    truth = np.log(np.exp(log_p - log_p.max()).sum() * 0.02 * 0.01) + log_p.max()
    assert abs(line["log_evidence"] - truth) < 0.01
    broken = dataclasses.replace(tutorials.by_name("linear"), load=dict)
    assert tutorials.run_one(broken, 0)["error"].startswith("TypeError: ")
