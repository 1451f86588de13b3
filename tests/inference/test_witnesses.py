"""Witnesses of missed parts: how far the particles of the exploration walk before they count."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import run

from numpyro_onestep.inference import witnesses
from numpyro_onestep.inference.drawing import ready, weighted_draws


def model():
    numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))


@pytest.fixture(scope="module")
def fitted():
    return run(model)


def share_after(fitted, monkeypatch, found, deadline=np.inf, log_density=0.0):
    """The share that counts, and the walks' lengths, where `found` says what is out of reach.

    All points stand at the origin, where the log-density is what it is said to be.
    """
    lengths = []

    def walk_from(part, start, rows, rng_key, num_moves):
        share = found[len(lengths)]
        lengths.append(num_moves)
        log_weight = np.where(np.arange(len(rows)) < share * len(rows), 50.0, -50.0)
        points, height = np.zeros((len(rows), 2)), np.full(len(rows), log_density)
        return witnesses.Walk(
            log_weight, np.ones(len(rows), bool), rows, points, height, 0.5
        ), start

    monkeypatch.setattr(witnesses, "walk_from", walk_from)
    fit = fitted._fit
    parts = ready(fit.target, fit.trained, 1)
    draws, first = weighted_draws(parts, jax.random.key(0), 1000, fit.chunk)
    num = witnesses.num_walking(fit.trained, fit.chunk)
    missed = witnesses.particle_share(
        fit.trained, parts, first, draws, 0.0, num, jax.random.key(1), deadline=deadline
    )
    assert num == fit.chunk and missed.num_gradients == sum(lengths) * num
    return missed.share, lengths


@pytest.mark.parametrize(
    "found, expected",
    [
        # Nothing to speak of.
        ([0.002], [20]),
        # A missed part keeps its share.
        ([0.2, 0.2], [20, 40]),
        # Particles in the outskirts come in, until they are few, or no more of them do.
        ([0.2, 0.1, 0.002], [20, 40, 80]),
        ([0.2, 0.18, 0.16, 0.16], [20, 40, 80, 160]),
        # There is an end to it.
        ([0.64, 0.32, 0.16, 0.08, 0.04, 0.02], [20, 40, 80, 160, 320, 640]),
    ],
)
def test_walks_go_on_while_they_lead_back(fitted, monkeypatch, found, expected):
    share, lengths = share_after(fitted, monkeypatch, found)
    assert lengths == expected
    assert share == pytest.approx(found[-1], abs=2e-3)


def test_after_the_deadline_there_is_one_walk(fitted, monkeypatch):
    share, lengths = share_after(fitted, monkeypatch, [0.2], deadline=-np.inf)
    assert lengths == [20]
    assert share == pytest.approx(0.2, abs=2e-3)


@pytest.mark.parametrize(
    "log_density, expected",
    # A normal of two dimensions has a mean log-density of -2.8 and an sd of 1.
    [(-4.0, 0.2), (-10.0, 0.2), (-17.0, 0.0), (np.nan, 0.2)],
)
def test_a_place_too_low_for_its_size_is_of_no_account(fitted, monkeypatch, log_density, expected):
    """Tempering may end there; points of unknown log-density are no such place."""
    share, _ = share_after(fitted, monkeypatch, [0.2, 0.2], log_density=log_density)
    assert share == pytest.approx(expected, abs=2e-3)


def test_a_wide_place_may_be_low():
    points = np.random.default_rng(0).normal(size=(500, 2)) * [[200.0, 100.0]]
    height, beyond = np.full(500, -17.0), np.ones(500, bool)
    walk = witnesses.Walk(np.full(500, 50.0), beyond, np.arange(500), points, height, 0.5)
    assert not witnesses._is_negligible(walk, beyond, 0.0).any()
    narrow = walk._replace(points=points / 100.0)
    assert witnesses._is_negligible(narrow, beyond, 0.0).all()


def test_few_particles_walk_in_short_chunks(fitted):
    """As where evaluations are dear: each of the particles is a witness, and few points move."""
    fit = fitted._fit
    few = fit.trained.replace(
        particles=fit.trained.particles[:60],
        particle_log_density=fit.trained.particle_log_density[:60],
    )
    parts = ready(fit.target, few, 1)
    draws, first = weighted_draws(parts, jax.random.key(0), 1000, fit.chunk)
    num = witnesses.num_walking(few, fit.chunk)
    missed = witnesses.particle_share(few, parts, first, draws, 0.0, num, jax.random.key(1))
    assert (num, missed.share, missed.num_gradients) == (120, 0.0, 20 * 120)


def test_walks_leave_from_where_the_last_one_ended(fitted):
    """In two walks the particles of an exact sampler stay posterior points, with known scores."""
    fit = fitted._fit
    (part,) = ready(fit.target, fit.trained, 1)
    _, (start,) = weighted_draws([part], jax.random.key(0), 1000, fit.chunk)
    rows = np.arange(len(start.image))
    _, once = witnesses.walk_from(part, start, rows, jax.random.key(1), 5)
    walk, twice = witnesses.walk_from(part, once, rows, jax.random.key(2), 5)
    assert walk.acceptance > 0.3
    assert (np.asarray(once.image) != np.asarray(twice.image)).any(1).mean() > 0.9
    # Means and mean squares within 4.5 standard errors: 1 in 37,000 seeds would fail.
    for power, sd in ((1, 1.0), (2, 2.0**0.5)):
        moments = (np.asarray(twice.image, float) ** power).mean(0)
        assert np.all(abs(moments - (power == 2)) < 4.5 * sd / len(rows) ** 0.5)
