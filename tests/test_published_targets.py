"""Targets that publications report, and the measures that they are compared by."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from numpyro_onestep.target import build_target

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"
SAMPLED = (
    "funnel",
    "gaussian_mixture_9",
    "gaussian_mixture_40",
    "gaussian_mixture_40_50d",
    "multi_well_5",
    "multi_well_50",
    "many_well_32",
    "student_mixture",
)


@pytest.fixture(scope="module")
def benchmarks():
    """Imports a module of the benchmarks' folder by name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


def test_every_target_that_can_be_sampled_has_an_evidence(benchmarks):
    rows = {row.name: row for row in benchmarks("suite").ROWS}
    assert {name for name, row in rows.items() if row.draws} == set(SAMPLED)
    assert all(np.isfinite(rows[name].log_z) for name in SAMPLED)
    for row in rows.values():
        assert not (row.improper and row.log_z is not None)


@pytest.mark.parametrize("name", ["multi_well_5", "multi_well_50", "many_well_32"])
def test_draws_of_the_wells_agree_with_the_density(benchmarks, name):
    row = benchmarks("suite").by_name(name)
    target = build_target(jax.random.key(0), row.model)
    num = 4000
    draws = row.draws(3, num)
    coordinate = draws["a" if name == "many_well_32" else "x"][:, 0]
    # The site that holds the wells in its first coordinate, on a grid of step 0.001.
    first = target.site_slices["a" if name == "many_well_32" else "x"].start
    grid = jnp.linspace(-4.0, 4.0, 8001)
    points = jnp.zeros((len(grid), row.dim)).at[:, first].set(grid)
    log_gamma = np.asarray(jax.jit(jax.vmap(target.log_density))(points), np.float64)
    weight = np.exp(log_gamma - log_gamma.max())
    mean, square = (np.average(np.asarray(grid) ** p, weights=weight) for p in (1, 2))
    # Five standard errors of fixed draws, two moments.
    for power, truth in ((1, mean), (2, square)):
        values = coordinate**power
        assert abs(values.mean() - truth) < 5.0 * values.std() / num**0.5


@pytest.mark.parametrize(
    "name",
    # Fifty dimensions and ten or forty components.
    [
        pytest.param(n, marks=pytest.mark.slow)
        if n in ("student_mixture", "gaussian_mixture_40_50d")
        else n
        for n in SAMPLED
    ],
)
def test_draws_obey_the_identity_of_stein(benchmarks, name):
    """`E_p[x . grad log p(x)] = -dim`, whatever the constant of p."""
    row = benchmarks("suite").by_name(name)
    target = build_target(jax.random.key(0), row.model, (), row.load(None))
    num = 50_000
    x = target.unconstrain(row.draws(4, num))
    assert x.shape == (num, row.dim)
    score = jax.jit(jax.vmap(jax.grad(target.log_density)))(x)
    products = np.asarray((x * score).sum(axis=1), np.float64)
    error = products.std() / num**0.5
    # Five standard errors of a fixed seed; the error must say something.
    assert error < 0.1 * row.dim
    assert abs(products.mean() + row.dim) < 5.0 * error


@pytest.mark.parametrize("name", ["gaussian_mixture_9", "multi_well_5"])
def test_evidence_by_the_draws(benchmarks, name):
    """`E_p[r / gamma] = 1 / Z` for any normalised `r` inside the target: here one around a draw."""
    row = benchmarks("suite").by_name(name)
    target = build_target(jax.random.key(0), row.model, (), row.load(None))
    num = 200_000
    x = target.unconstrain(row.draws(4, num))
    log_gamma = jax.jit(jax.vmap(target.log_density))(x)
    if name == "multi_well_5":
        # All 32 wells at once, r spread over them: they are mirror images.
        x = jnp.abs(x)
        log_gamma = log_gamma + 5.0 * np.log(2.0)
    inside = stats.norm(0.0, 0.15).logpdf(np.asarray(x - x[0])).sum(axis=1)
    terms = np.exp(inside - np.asarray(log_gamma, np.float64))
    # Four standard errors of a fixed seed; the error must say something.
    error = terms.std() / num**0.5 / terms.mean()
    assert error < 0.05
    assert abs(np.log(terms.mean()) + row.log_z) < 4.0 * error


def test_a_flat_prior_has_no_evidence(benchmarks):
    row = benchmarks("suite").by_name("german_credit_flat")
    assert row.improper
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.integers(0, 2, 20).astype(float)
    assert build_target(jax.random.key(0), row.model, (), {"x": x, "y": y}).evidence == "refused"


def test_forward_ess_of_two_gaussians(benchmarks):
    """Target N(0, 1), sampler N(0, s^2): `E_p[w] E_p[1/w] = s^2 / sqrt(2 s^2 - 1)`."""
    forward_ess = benchmarks("metrics").forward_ess
    s, num = 1.2, 100_000
    x = np.random.default_rng(0).normal(size=num)
    log_w = stats.norm.logpdf(x) - stats.norm.logpdf(x, scale=s) + 3.0
    truth = np.sqrt(2.0 * s**2 - 1.0) / s**2
    # The larger of the two weights has a relative sd of 0.3: five standard errors are 0.005.
    assert forward_ess(log_w) == pytest.approx(truth, abs=0.005)
    assert forward_ess(np.full(10, -800.0)) == pytest.approx(1.0)


def test_mmd_of_shifted_gaussians(benchmarks):
    """Kernel of squared length l: `MMD^2 = 2 (l / (l + 2))^(d/2) (1 - exp(-|c|^2 / (2 l + 4)))`."""
    mmd = benchmarks("metrics").mmd
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1500, 3))
    shift = np.array([0.8, 0.0, 0.0])
    length = stats.chi2(3).median() * 2.0  # of squared distances within y
    square = 2.0 * (length / (length + 2.0)) ** 1.5 * (1.0 - np.exp(-0.64 / (2.0 * length + 4.0)))
    # The sample means differ by 0.037 (1 sd), which moves MMD by 4.6 % of itself: five of these.
    assert mmd(x + shift, y) == pytest.approx(np.sqrt(square), rel=0.23)
    assert mmd(x, y) < 0.23 * np.sqrt(square)


def test_sinkhorn_of_a_shift(benchmarks):
    pytest.importorskip("ott")
    sinkhorn = benchmarks("metrics").sinkhorn
    x = np.random.default_rng(0).normal(size=(300, 2))
    shift = np.array([6.0, 0.0])
    # Moving every point by the shift is the cheapest plan, 36; the regularisation blurs it.
    assert sinkhorn(x + shift, x) == pytest.approx(36.0, rel=0.1)
    assert sinkhorn(x, x) < 1.0
