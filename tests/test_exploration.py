"""Exploration: separate modes, partition into components, and what cuts it short."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from counts import COUNTS, counts, evidence_of_counts
from explored import Y, conjugate, flat, hidden
from scipy import stats

from numpyro_onestep import exploration
from numpyro_onestep.exploration import Component, Partition, explore
from numpyro_onestep.exploration.between import bhattacharyya, has_valley
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import build_target
from numpyro_onestep.training import ResampleMove


def needle(dim, width):
    """Evidence 1: the prior itself, by half, and a narrow normal."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([dim]).to_event(1))
    log_ratio = dist.Normal(0.7, width).log_prob(x) - dist.Normal(0.0, 1.0).log_prob(x)
    numpyro.factor("f", jnp.logaddexp(log_ratio.sum(), 0.0) - jnp.log(2.0))


LOADING = np.array([1.0, -0.8, 0.6, 0.9])


def one_factor(y):
    """The sign of all loadings and scores together is not identified."""
    loading = numpyro.sample("loading", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    score = numpyro.sample("score", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
    numpyro.sample("y", dist.Normal(score[:, None] * loading, noise).to_event(2), obs=y)


def heavy():
    numpyro.sample("x", dist.StudentT(1.5, 0.0, 1.0))


@pytest.fixture(scope="module")
def target():
    return build_target(jax.random.key(0), conjugate, (Y,))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_rounding_errors_are_no_mode(seed):
    """Beyond a concentration of 1e6 the density in single precision is tens of nats too high."""
    target = build_target(jax.random.key(0), counts, (COUNTS,))
    found = explore(target, jax.random.key(seed), 4, 64)
    assert found.in_double and found.particles.points.dtype == np.float32
    truth = evidence_of_counts()
    assert len(found.modes) == 1 and not found.diverged
    assert truth - 1.0 < found.modes[0].bound < truth + 0.01
    assert all(fit.bound < truth + 0.01 for fit in found.rivals)
    # A tail of HalfCauchy(5) is left where the likelihood no longer falls.
    largest = np.exp(found.particles.points[:, target.site_slices["concentration"]])
    assert 5.0 < np.median(largest) < 200.0


def test_nothing_is_done_twice_where_single_precision_serves(target):
    assert not explore(target, jax.random.key(0), 1, 64).in_double


@pytest.mark.parametrize("dim, width", [(1, 1e-4), (2, 1e-2), (5, 0.1)])
def test_finds_a_needle_in_a_hill(dim, width):
    """Half of the posterior in 1e-4 to 1e-5 of the prior's mass, in the middle of the rest."""
    target = build_target(jax.random.key(0), needle, (dim, width))
    found = explore(target, jax.random.key(1), 4, 64)
    by_scale = sorted(found.modes, key=lambda fit: np.abs(np.asarray(fit.affine.factor)).max())
    assert len(by_scale) == 2
    np.testing.assert_allclose(np.diagonal(by_scale[0].affine.factor), width, rtol=0.05)
    assert np.exp(by_scale[0].bound) == pytest.approx(0.5, rel=0.05)
    # A draw of the fit that meets the needle throws the fit of the hill back.
    assert np.diagonal(by_scale[1].affine.factor).min() > 0.3


@pytest.mark.parametrize("model", [hidden, flat])
@pytest.mark.parametrize("distance", [10.0, 30.0, 100.0])
def test_finds_both_modes(model, distance):
    target = build_target(jax.random.key(0), model, (distance,))
    found = explore(target, jax.random.key(1), 4, 64)
    assert [round(float(fit.affine.mean[0])) for fit in found.modes] == [distance, 0]
    np.testing.assert_allclose([np.exp(fit.bound) for fit in found.modes], [0.9, 0.1], rtol=0.02)
    assert found.unreached < 0.01 and not found.diverged and not found.stopped


def test_one_mode_is_one(target):
    found = explore(target, jax.random.key(1), 4, 64)
    # The fits from other starts are the same one: they bear no witness of anything else.
    assert len(found.modes) == 1 and not found.rivals


@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2))])
def test_finds_mirrored_modes_in_many_dimensions(seed):
    """Tempering alone leaves less than a tenth of the particles in one of the two."""
    y = LOADING * np.random.default_rng(7).normal(size=(30, 1))
    y += np.random.default_rng(8).normal(0.0, 0.5, y.shape)
    target = build_target(jax.random.key(0), one_factor, (y,))
    found = explore(target, jax.random.key(seed), ResampleMove().num_starts, 64)
    a, b = (np.asarray(fit.affine.mean) for fit in found.modes)
    noise = target.dim - 31
    assert (a * b < 0.0).mean() > 0.8 and abs(a[noise] - b[noise]) < 0.1
    assert abs(found.modes[0].bound - found.modes[1].bound) < 0.3


def test_valleys():
    """Between two hills; not on the way down a heavy tail, nor where there is no density."""
    ends = np.array([[25.0], [4.0], [-3.0], [33.0]], np.float32)
    target = build_target(jax.random.key(0), hidden, (30.0,))
    found = has_valley(target, jnp.zeros(1), ends)
    assert found.tolist() == [True, False, False, True]
    target = build_target(jax.random.key(0), heavy)
    assert not has_valley(target, jnp.zeros(1), 10.0 * ends).any()


def test_bhattacharyya():
    """Between N(0, s I) and N(m, t I), by its definition."""
    a = Affine(jnp.zeros(2), 0.5 * jnp.eye(2))
    b = Affine(jnp.array([3.0, 0.0]), jnp.array([[2.0, 0.0], [0.0, 2.0]]))
    variance = (0.25 + 4.0) / 2.0
    expected = 9.0 / variance / 8.0 + 0.5 * np.log(variance**2 / np.sqrt(0.25**2 * 4.0**2))
    assert bhattacharyya(a, b) == pytest.approx(expected, rel=1e-5)
    assert bhattacharyya(a, a) == pytest.approx(0.0, abs=1e-6)


def test_components_add_up_to_the_target():
    target = build_target(jax.random.key(0), hidden, (4.0,))
    fits = [Affine(jnp.array([m]), jnp.array([[s]])) for m, s in ((0.3, 1.0), (4.0, 2.0))]
    partition = Partition.of(fits, [-1.0, 2.0])
    x = jnp.linspace(-20.0, 20.0, 2001)[:, None]
    parts = [jax.vmap(Component.of(target, partition, c).log_density)(x) for c in range(2)]
    np.testing.assert_allclose(
        jnp.logaddexp(*parts), jax.vmap(target.log_density)(x), rtol=1e-4, atol=1e-3
    )
    # By the definition, with the shares' common constant left out.
    responsibility = np.exp(1.0 * np.array([-1.0, 2.0]))[:, None] * np.stack(
        [stats.norm(0.3, 1.0).pdf(x[:, 0]), stats.norm(4.0, 2.0).pdf(x[:, 0])]
    )
    responsibility /= responsibility.sum(0)
    found = np.exp(jax.vmap(partition.log_responsibility)(x)).T
    np.testing.assert_allclose(found, responsibility, atol=1e-4)


def test_ctrl_c_keeps_the_fits(monkeypatch):
    target = build_target(jax.random.key(0), hidden, (30.0,))
    fit_gaussian, calls = exploration.modes.fit_gaussian, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit_gaussian(*args)

    monkeypatch.setattr(exploration.modes, "fit_gaussian", interrupted)
    found = explore(target, jax.random.key(1), 4, 64)
    assert found.stopped == "interrupted" and len(found.modes) + len(found.rivals) == 2


def test_ctrl_c_before_any_fit(monkeypatch):
    target = build_target(jax.random.key(0), hidden, (30.0,))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(exploration.modes, "temper", interrupted)
    with pytest.raises(KeyboardInterrupt):
        explore(target, jax.random.key(1), 4, 64)


def test_deadline():
    target = build_target(jax.random.key(0), hidden, (30.0,))
    found = explore(target, jax.random.key(1), 4, 64, deadline=0.0)
    assert found.stopped == "time limit" and len(found.modes) == 1


def test_dear_fits_end_once_one_brings_no_news(monkeypatch):
    monkeypatch.setattr(exploration.modes, "_MAX_GRADIENTS", 1)
    fits = []
    fit_gaussian = exploration.modes.fit_gaussian
    monkeypatch.setattr(
        exploration.modes,
        "fit_gaussian",
        lambda *args: fits.append(fit_gaussian(*args)) or fits[-1],
    )
    target = build_target(jax.random.key(0), hidden, (30.0,))
    found = explore(target, jax.random.key(1), 8, 64)
    # One of each mode, and three in a row that are like one of them.
    assert len(found.modes) == 2
    assert len(fits) <= 2 + 3
