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

    All points move together, and the log-density is what it is said to be.
    """
    lengths = []

    def walk_from(part, start, rows, rng_key, num_moves):
        share = found[len(lengths)]
        lengths.append(num_moves)
        log_weight = np.where(np.arange(len(rows)) < share * len(rows), 50.0, -50.0)
        points, height = np.full((len(rows), 2), len(lengths)), np.full(len(rows), log_density)
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
        ([0.64, 0.32, 0.16, 0.08, 0.04, 0.02, 0.01], [20, 40, 80, 160, 320, 640, 1280]),
    ],
)
def test_walks_go_on_while_they_lead_back(fitted, monkeypatch, found, expected):
    share, lengths = share_after(fitted, monkeypatch, found)
    assert lengths == expected
    assert share == pytest.approx(found[-1], abs=2e-3)


def test_points_that_stand_still_prove_nothing():
    """At most a tenth of those out of reach may: else they walk on."""
    before, after = place(-7.0)
    beyond = np.arange(400) < 100
    assert witnesses._has_settled((before, beyond), after, beyond)
    for num, settled in ((10, True), (11, False)):
        some = np.where((np.arange(400) < num)[:, None], before.points, after.points)
        still = after._replace(points=some)
        assert witnesses._has_settled((before, beyond), still, beyond) == settled


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


def place(log_share, dim=10, num=400, seed=0):
    """Two independent sets of points of a normal that holds this log-share of the evidence."""
    scales = np.linspace(0.1, 3.0, dim)
    walks = []
    for i in range(2):
        z = np.random.default_rng([seed, i]).normal(size=(num, dim))
        height = log_share - 0.5 * (z**2).sum(1) - np.log(scales * np.sqrt(2.0 * np.pi)).sum()
        known, rows = np.ones(num, bool), np.arange(num)
        walks.append(witnesses.Walk(np.full(num, 50.0), known, rows, z * scales, height, 0.5))
    return walks


def bound(before, after):
    everywhere = np.ones(len(after.row), bool)
    return witnesses._log_share_bound(before, everywhere, after, everywhere, 0.0)


@pytest.mark.parametrize("dim, num", [(2, 50), (10, 20), (10, 400), (60, 200)])
def test_points_of_one_place_bound_its_share(dim, num):
    """Three errors of the mean and of the sds above the truth, give or take three (200 sets)."""
    error = (dim / num) ** 0.5
    found = np.array([bound(*place(-7.0, dim, num, seed)) for seed in range(200)])
    # Now and then two sets of points of a normal do not look it.
    known = np.isfinite(found)
    assert known.mean() > 0.85
    np.testing.assert_array_less(-7.0, found[known])
    np.testing.assert_array_less(found[known], -7.0 + 6.0 * error)


def test_a_share_is_not_bounded_by_points_that_may_be_underway():
    before, after = place(-7.0)
    assert bound(before, after) < -6.0
    # They climb or spread, are of two places, or few, or of unknown density or size.
    lower = before._replace(log_density=before.log_density - 2.0)
    closer = before._replace(points=0.8 * before.points)
    two = after._replace(log_density=after.log_density - np.arange(400) % 2 * 20.0)
    few = after._replace(row=np.arange(400) % 5)
    unknown = after._replace(log_density=np.where(np.arange(400) == 3, np.nan, after.log_density))
    flat = after._replace(points=after.points * (np.arange(10) > 0))
    for earlier in (lower, closer):
        assert bound(earlier, after) == np.inf
    for later in (two, few, unknown, flat):
        assert bound(before, later) == np.inf


def test_a_neck_that_tempering_has_overfilled_counts_for_what_it_holds(fitted, monkeypatch):
    """A fifth of the particles, in a place that holds e^-9 of the evidence by its own account."""
    (part,) = ready(fitted._fit.target, fitted._fit.trained, 1)
    num = witnesses.num_walking(fitted._fit.trained, fitted._fit.chunk)
    rng = np.random.default_rng(0)

    def walk_from(part, start, rows, rng_key, num_moves):
        beyond = np.arange(num) < 0.2 * num
        z = rng.normal(size=(num, 2))
        height = -0.5 * (z**2).sum(1) - np.log(2.0 * np.pi) - 9.0 * beyond
        log_weight = np.where(beyond, 50.0, -50.0)
        known = np.ones(num, bool)
        return witnesses.Walk(log_weight, known, np.arange(num), z, height, 0.5), start

    monkeypatch.setattr(witnesses, "walk_from", walk_from)
    draws, first = weighted_draws([part], jax.random.key(0), 1000, fitted._fit.chunk)
    missed = witnesses.particle_share(
        fitted._fit.trained, [part], first, draws, 0.0, num, jax.random.key(1)
    )
    assert np.exp(-9.0) < missed.share < np.exp(-8.0)


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
