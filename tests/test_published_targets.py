"""Targets that publications report: their evidences, and their draws where there are some."""

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
