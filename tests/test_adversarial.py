"""The hard posteriors: their truths against draws from the prior, and the judge of a run."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.handlers import seed, trace
from scipy import stats

from numpyro_onestep import ResampleMove

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def adversarial():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("adversarial")
    sys.path.remove(str(BENCHMARKS))


def prior_draws(row, num):
    """Sites `(num, *event)` from the prior, and the log-likelihood of each draw, factors too."""
    arguments = row.load()

    def one(key):
        sites = trace(seed(row.model, key)).get_trace(**arguments)
        log_likelihood = jnp.zeros(())
        for site in sites.values():
            if site["type"] == "sample" and site["is_observed"]:
                log_likelihood += jnp.sum(site["fn"].log_prob(site["value"]))
        hidden = {k: s["value"] for k, s in sites.items() if not s.get("is_observed", False)}
        return {k: v for k, v in hidden.items() if hasattr(v, "shape")}, log_likelihood

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), num))


# Those whose likelihood is too sharp for the prior: closed forms, or found by the sampler itself.
SHARP = {
    "many_well",
    "only_the_sum",
    "ill_conditioned",
    "many_observations",
    "stochastic_volatility",
    "horseshoe",
    "spike_and_slab",
    "one_factor",
    "beta_groups",
    "poisson_groups",
    "many_groups",
    "varying_slopes",
    "random_walk",
    "two_instruments",
}
# Draws of the prior where one in 10^5 has nearly all of the weight, and where each takes long.
NUM_DRAWS = {"multi_well": 2_000_000, "student_mixture": 4000}
QUICK = ("ring", "step", "undefined_region", "weak_mixture", "angle", "ridge")


def check_truth(row):
    # At 5 standard errors each and about 300 numbers, one new seed in 5000 would fail.
    truth, num = row.truth(), NUM_DRAWS.get(row.name, 100_000)
    samples, log_likelihood = prior_draws(row, num)
    log_likelihood = np.nan_to_num(np.asarray(log_likelihood, float), nan=-np.inf)
    top = log_likelihood.max()
    weight = np.exp(log_likelihood - top)
    mean, se = weight.mean(), weight.std() / np.sqrt(num)
    assert se / mean < 0.1
    assert abs(np.log(mean) + top - truth.log_z) <= 5.0 * se / mean + 1e-6
    for marginal in truth.marginals:
        value = np.asarray(marginal.value({k: np.asarray(v) for k, v in samples.items()}))
        for point, probability in zip(marginal.points, marginal.probabilities, strict=True):
            influence = weight * ((value <= point) - probability) / mean
            assert abs(influence.mean()) <= 5.0 * influence.std() / np.sqrt(num) + 1e-3, marginal


def test_page(adversarial, tmp_path):
    """Every class in its cell, the largest error of what counts, and the cause of a refusal."""
    page = adversarial.hard_page
    rows = [adversarial.by_name(name) for name in ("ring", "cross", "step")]
    right = {
        "class": "right",
        "verdict": "reliable",
        "true": 1.0,
        "se": 0.01,
        "reasons": ["k", "r"],
    }
    lines = [
        right | {"name": "ring", "seed": 0, "log_z": 1.001},
        right | {"name": "ring", "seed": 1, "log_z": 0.98, "verdict": "usable_with_weights"},
        right | {"name": "cross", "seed": 0, "log_z": 3.0, "class": "WRONG"},
        right
        | {"name": "cross", "seed": 1, "log_z": 9.0, "class": "refused", "reasons": ["k", "folds"]},
        {"name": "step", "seed": 0, "class": "failed", "verdict": "no result within 3 s"},
    ]
    path = tmp_path / "lines.jsonl"
    for line in (lines[1] | {"log_z": 7.0}, *lines):
        adversarial.records.append(path, line)
    assert sorted(map(str, page.load(path))) == sorted(map(str, lines))
    text = page.tables(lines, rows)
    assert "5 runs: 2 right (40%), 1 refused (20%), 1 without a result (20%), 1 wrong" in text
    ring, cross, step = (next(t for t in text.splitlines() if f"`{r.name}` |" in t) for r in rows)
    assert "| right | right, with weights | -0.02 | 0.01 |" in ring
    assert "| **WRONG**, reliable | refused | 2 | 0.01 |" in cross
    assert "| no result within 3 s | not run | - | - |" in step
    assert "* `cross`, seed 1: folds" in text


@pytest.mark.parametrize("name", QUICK)
def test_truths(adversarial, name):
    check_truth(adversarial.by_name(name))


@pytest.mark.slow
def test_all_truths(adversarial):
    for row in adversarial.ROWS:
        if row.name not in SHARP:
            check_truth(row)


def test_autoregression_of_the_volatility_is_a_multivariate_normal(adversarial):
    mean, phi, scale, lag = 0.3, 0.8, 0.5, np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    process = importlib.import_module("hard_volatility").StationaryAR1(
        jnp.array(mean), jnp.array(phi), jnp.array(scale), 6
    )
    covariance = scale**2 / (1.0 - phi**2) * phi**lag
    x = process.sample(jax.random.key(0), (20_000,))
    want = stats.multivariate_normal(np.full(6, mean), covariance).logpdf(x[:10])
    np.testing.assert_allclose(process.log_prob(x[:10]), want, rtol=1e-4)
    np.testing.assert_allclose(np.cov(np.asarray(x).T), covariance, atol=0.03)


def test_rows(adversarial):
    names = [row.name for row in adversarial.ROWS]
    assert len(names) == len(set(names)) >= 40
    assert SHARP <= set(names)
    with pytest.raises(ValueError, match="expected one of funnel.*; got 'x'"):
        adversarial.by_name("x")


@pytest.mark.parametrize(
    "verdict, log_z, share, expected",
    [
        ("reliable", 0.05, 0.5, "right"),
        ("usable_with_weights", 0.05, 0.5, "right"),
        ("unreliable", 0.05, 0.5, "refused"),
        ("reliable", -0.7, 0.5, "WRONG"),
        ("reliable", 0.0, 0.4, "WRONG"),
        ("reliable", np.nan, 0.5, "WRONG"),
        ("rescued", 0.05, 0.5, "right"),
        ("rescued", 0.0, 0.4, "WRONG"),
        ("usable_with_weights", -0.7, 0.5, "WRONG"),
        ("unreliable", np.nan, 0.0, "refused"),
    ],
)
def test_judge(adversarial, verdict, log_z, share, expected):
    truth = adversarial.Truth(0.0, (adversarial.Marginal("x", lambda s: s["x"], (0.0,), (0.5,)),))
    samples = {"x": np.where(np.arange(2000) < 2000 * share, -1.0, 1.0)}
    weights = np.full(2000, 1 / 2000)
    finding = adversarial.Finding(verdict, log_z, 0.01, samples, weights, 2000.0)
    assert adversarial.classify(truth, finding) == expected


@pytest.mark.slow
def test_a_run(adversarial):
    method = ResampleMove(
        width=16, num_blocks=2, num_points=500, num_updates=50, max_rounds=3, num_annealing=2
    )
    row = adversarial.by_name("edge_of_uniform")
    line = adversarial.run_one(row, 0, num_samples=500, method=method)
    assert line["class"] in ("right", "refused")
    assert abs(line["log_z"] - line["true"]) < 0.1
    assert "edge_of_uniform" in adversarial.table_line(line)


def test_an_error_is_no_wrong_answer(adversarial):
    row = adversarial.by_name("sign_symmetric")
    row = adversarial.HardRow(
        row.name, row.model, row.truth, 1, "", lambda: {"y": np.array(np.nan)}
    )
    line = adversarial.run_one(row, 0, num_samples=500)
    assert line["class"] == "refused" and "site 'y'" in line["reasons"][0]
    assert "refused" in adversarial.table_line(line)
