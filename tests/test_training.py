"""Training: its method, the moves that leave the posterior alone, what a run records."""

import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import genpareto

from numpyro_onestep.importance import ess
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import build_target
from numpyro_onestep.training import Draws, ResampleMove, draw, move, train
from numpyro_onestep.training.budget import Budget, Pace
from numpyro_onestep.training.draws import standard_normal_log_density, value_and_score
from numpyro_onestep.training.enough import is_enough, is_normal, serves, targets
from numpyro_onestep.training.moves import move_settings, training_settings


@pytest.mark.parametrize(
    "change, message",
    [
        ({"width": 0}, "expected width to be a positive int; got 0"),
        ({"num_points": -1}, "expected num_points to be a positive int; got -1"),
        ({"num_updates": 10.0}, "expected num_updates to be a positive int; got 10.0"),
        ({"max_rounds": 0}, "expected max_rounds to be a positive int; got 0"),
        ({"target_ess": 0.0}, r"expected target_ess in \(0, 1\]; got 0.0"),
        ({"target_ess": float("nan")}, r"expected target_ess in \(0, 1\]; got nan"),
        ({"reuse_ess": 1.5}, r"expected reuse_ess in \(0, 1\]; got 1.5"),
        ({"ema": 1.0}, r"expected ema in \[0, 1\); got 1.0"),
        ({"learning_rate": 0.0}, "expected a positive learning_rate; got 0.0"),
        ({"num_buffered": 0}, "expected num_buffered to be a positive int; got 0"),
    ],
)
def test_settings(change, message):
    with pytest.raises(ValueError, match=message):
        ResampleMove(**change)


def banana():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(0.3 * x**2, 0.5))


def skewed():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    # Not normal in any coordinates: there is something to learn.
    numpyro.sample("y", dist.Gumbel(0.3 * x**2, 0.5))


@pytest.fixture(scope="module")
def target():
    return build_target(jax.random.key(0), banana)


NUM = 20_000


def test_moves_leave_the_posterior_alone(target):
    """From exact draws, moments stay within 4.5 standard errors: 1 in 20,000 seeds would fail."""
    key_x, key_y, key_move = jax.random.split(jax.random.key(1), 3)
    x = jax.random.normal(key_x, (NUM,))
    points = jnp.stack([x, 0.3 * x**2 + 0.5 * jax.random.normal(key_y, (NUM,))], axis=1)
    affine = Affine(jnp.zeros(2), jnp.eye(2))
    value, score = value_and_score(target, affine, points)
    # A determinant that makes all weights equal: nothing is resampled.
    log_det = standard_normal_log_density(points) - value
    draws = Draws(points, points, value, score, log_det, jnp.ones(NUM))
    moved = move(
        target,
        affine,
        draws,
        jnp.asarray(0.8),
        jnp.asarray(1.0),
        jnp.asarray(jnp.inf),
        jnp.asarray(20),
        key_move,
    )
    assert 0.2 < float(moved.acceptance) < 0.95
    assert float(jnp.abs(moved.points - points).mean()) > 0.5
    a, b = np.asarray(moved.points, np.float64).T
    noise = b - 0.3 * a**2
    # Standard normal a, independent noise of variance 1/4.
    for values, mean in ((a, 0.0), (a**2, 1.0), (noise, 0.0), (noise**2, 0.25), (a * noise, 0.0)):
        assert abs(values.mean() - mean) < 4.5 * values.std() / np.sqrt(NUM)
    fresh_value, fresh_score = value_and_score(target, affine, moved.points)
    np.testing.assert_allclose(moved.log_density, fresh_value, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moved.score, fresh_score, rtol=1e-3, atol=1e-3)


def test_one_point_far_out_takes_no_others_place(target):
    """Without resampling every draw moves on from where it is, however unequal they are."""
    num = 500
    points = jax.random.normal(jax.random.key(2), (num, 2)).at[0].set(1e5)
    affine = Affine(jnp.zeros(2), jnp.eye(2))
    value, score = value_and_score(target, affine, points)
    assert float(value[0]) < -1e18
    draws = Draws(points, points, value, score, jnp.zeros(num), jnp.ones(num))
    moved = move(
        target,
        affine,
        draws,
        jnp.asarray(0.1),
        jnp.asarray(1.0),
        jnp.asarray(0.0),
        jnp.asarray(1),
        jax.random.key(3),
    )
    assert moved.ancestors.tolist() == list(range(num))
    assert float(jnp.linalg.norm(moved.points - points, axis=1)[1:].max()) < 3.0


def test_an_unknown_score_is_found_by_the_first_transition(target):
    points = jax.random.normal(jax.random.key(4), (200, 2))
    affine = Affine(jnp.zeros(2), jnp.eye(2))
    value, score = value_and_score(target, affine, points)
    unknown = jnp.full_like(score, jnp.nan)
    draws = Draws(points, points, value, unknown, jnp.zeros(200), jnp.ones(200))

    def moved(times):
        settings = (jnp.asarray(0.1), jnp.asarray(1.0), jnp.asarray(0.0), jnp.asarray(times))
        return move(target, affine, draws, *settings, jax.random.key(5))

    np.testing.assert_array_equal(moved(1).points, points)
    np.testing.assert_allclose(moved(1).score, score, rtol=1e-4, atol=1e-4)
    assert float(moved(1).acceptance) == 0.0
    assert (moved(2).points != points).mean() > 0.9


@pytest.mark.parametrize(
    "power, settings",
    [
        (1.0, move_settings(np.float32(1e-3), 1.0, math.inf, 1)),
        # What is trained on has the tail that the sampler is short of.
        (2.0, training_settings(np.float32(1e-3), 1000, 1)),
    ],
)
def test_resampling_follows_the_weights(target, power, settings):
    """Points are drawn by powers of the weight; folded and unknown ones never."""
    num = 1000
    points = jnp.stack([jnp.linspace(-2.0, 2.0, num), jnp.zeros(num)], axis=1)
    affine = Affine(jnp.zeros(2), jnp.eye(2))
    value, score = value_and_score(target, affine, points)
    which = jnp.arange(num)
    log_weight = jnp.where(which < 500, jnp.log(3.0), 0.0)
    log_det = log_weight + standard_normal_log_density(points) - value
    log_det = log_det.at[7].set(jnp.nan)
    sign = jnp.ones(num).at[11].set(-1.0)
    draws = Draws(points, points, value, score, log_det, sign)
    moved = move(target, affine, draws, *settings, jax.random.key(0))
    counts = np.bincount(np.asarray(moved.ancestors), minlength=num)
    assert counts[7] == counts[11] == 0
    # Systematic resampling: every count is its expectation, rounded up or down.
    weight = np.where(np.arange(num) < 500, 3.0, 1.0) ** power
    weight[[7, 11]] = 0.0
    assert np.all(np.abs(counts - num * weight / weight.sum()) < 1.0 + 1e-3)


SETTINGS = ResampleMove(
    width=8,
    num_blocks=1,
    num_points=400,
    num_updates=20,
    max_rounds=4,
    num_annealing=2,
    patience=10,
    target_ess=1.0,
    num_starts=1,
)


def test_history():
    target = build_target(jax.random.key(0), skewed)
    rounds = []
    sampler, history = train(
        target, jax.random.key(2), SETTINGS, on_round=lambda i, _: rounds.append(i)
    )
    assert rounds == list(range(6))
    assert len(history.ess_fraction) == len(history.log_evidence) == len(history.acceptance) == 6
    assert len(history.losses) == 6 * SETTINGS.num_updates
    assert np.all((np.array(history.ess_fraction) > 0) & (np.array(history.ess_fraction) <= 1))
    # A normalised density; 400 draws per round.
    assert np.abs(history.log_evidence).max() < 0.2
    assert np.all(np.isfinite(history.losses)) and np.all(np.isfinite(history.gaussian_elbo))
    assert history.stopped == "" and not history.diverged
    per_round = 400 * (1 + SETTINGS.num_moves) + 20 * SETTINGS.batch_size
    assert history.num_gradients > 6 * per_round
    assert 0.0 < history.seconds
    assert sampler.components[0].affine.mean.shape == (2,)


@pytest.mark.parametrize("wanted", [0.01, 0.88])
def test_ends_when_the_draws_are_good_enough(wanted):
    """Two good rounds running, then the last rounds over which the learning rate falls."""
    target = build_target(jax.random.key(0), skewed)
    settings = dataclasses.replace(SETTINGS, target_ess=wanted, max_rounds=20)
    _, history = train(target, jax.random.key(2), settings)
    good = np.array(history.ess_fraction) >= wanted
    second = np.flatnonzero(good[1:] & good[:-1])[0] + 1
    assert len(history.ess_fraction) == second + settings.num_annealing
    assert len(history.losses) == len(history.ess_fraction) * settings.num_updates
    assert history.stopped == ""


# The longest ones leave determinants that are not known.
@pytest.mark.parametrize("learning_rate", [30.0, 3000.0])
def test_an_accident_does_not_cost_the_sampler(learning_rate):
    """Steps far too long ruin the network; the parameters of the best round are kept."""
    target = build_target(jax.random.key(0), skewed)
    settings = dataclasses.replace(SETTINGS, max_rounds=2, num_annealing=0)
    settings = dataclasses.replace(settings, learning_rate=learning_rate)
    mixture, history = train(target, jax.random.key(2), settings)
    assert len(history.losses) > 0 and min(history.ess_fraction) < 0.2 < max(history.ess_fraction)
    (component,) = mixture.components
    draws = draw(target, component.affine, component.steps(target, 1), jax.random.key(3), 4000)
    assert ess(draws.log_weight, draws.sign).fraction > 0.5 * max(history.ess_fraction)


def test_ends_without_a_gain():
    target = build_target(jax.random.key(0), skewed)
    settings = dataclasses.replace(SETTINGS, max_rounds=30, patience=2, learning_rate=1e-9)
    _, history = train(target, jax.random.key(2), settings)
    assert len(history.ess_fraction) < 15


def test_nothing_to_train_where_the_posterior_is_normal():
    """The Gaussian fit is the sampler: no step of the optimiser, and no heavier tails."""
    target = build_target(jax.random.key(0), lambda: numpyro.sample("x", dist.Normal(3.0, 2.0)))
    settings = dataclasses.replace(SETTINGS, target_ess=0.95)
    sampler, history = train(target, jax.random.key(2), settings)
    assert history.losses == [] and len(history.ess_fraction) == 1
    assert history.ess_fraction[0] > 0.999 and history.stopped == "" and not history.diverged
    steps = sampler.components[0].steps(target, 1)
    draws = draw(target, sampler.components[0].affine, steps, jax.random.key(3), 400)
    assert np.abs(np.asarray(draws.log_weight)).max() < 0.01


@pytest.mark.parametrize(
    "shape, scale, enough", [(0.0, 0.03, True), (0.8, 5e-4, False), (0.8, 1e-4, True)]
)
def test_a_fit_with_a_heavy_tail_needs_training(shape, scale, enough):
    """Weights worth 99.5 % of their number, whose tail has a variance, has none, or is tiny."""
    quantile = (np.arange(2000) + 0.5) / 2000
    weight = 1.0 + scale * genpareto(shape).ppf(quantile)
    zeros = np.zeros((2000, 1))
    draws = Draws(zeros, zeros, np.log(weight), zeros, zeros[:, 0], zeros[:, 0] + 1.0)
    assert weight.mean() ** 2 / (weight**2).mean() > 0.995 and weight.max() < 1.5 * weight.mean()
    assert is_normal(draws, dataclasses.replace(SETTINGS, target_ess=0.95)) == enough


@pytest.mark.parametrize("shape, enough", [(0.2, True), (0.8, False)])
def test_what_was_trained_does_not_serve_with_a_heavy_tail(shape, enough):
    """However large the share of effective draws, which fresh draws hardly ever put in doubt."""
    quantile = (np.arange(2000) + 0.5) / 2000
    weight = 1.0 + 5e-3 * genpareto(shape).ppf(quantile)
    ess_fraction = weight.mean() ** 2 / (weight**2).mean()
    zeros = np.zeros((2000, 1))
    draws = Draws(zeros, zeros, np.log(weight), zeros, zeros[:, 0], zeros[:, 0] + 1.0)
    assert ess_fraction > SETTINGS.reuse_ess
    assert serves(draws, ess_fraction, SETTINGS) == enough
    assert not serves(draws, 0.9 * SETTINGS.reuse_ess, SETTINGS)


def test_what_was_trained_is_kept_where_it_serves():
    """Two sets of fresh draws reach the target as they are."""
    target = build_target(jax.random.key(0), skewed)
    mixture, history = train(target, jax.random.key(2), SETTINGS)
    assert len(history.losses) > 0
    settings = dataclasses.replace(SETTINGS, reuse_ess=0.5)
    _, history = train(target, jax.random.key(3), settings, warm=mixture)
    assert history.losses == [] and len(history.ess_fraction) == 2
    assert min(history.ess_fraction) >= 0.5


def test_targets_of_components():
    """Together they reach the target, with less for a small component; one alone has it all."""
    assert targets([-3.0], 0.8) == pytest.approx([0.8])
    assert targets([-3.0, -3.0], 0.8) == pytest.approx([0.8, 0.8])
    # A fit that diverged has no bound.
    assert targets([math.nan], 0.8) == pytest.approx([0.8])
    share = np.array([0.9, 0.1])
    wanted = np.array(targets(np.log(share) - 50.0, 0.8))
    assert wanted[0] > 0.8 > wanted[1] > 0.5
    assert 1.0 / np.sum(share / wanted) == pytest.approx(0.8)
    # A negligible one, or one without a bound, must be worth half of its number all the same.
    assert targets([0.0, -30.0, math.nan], 0.8)[1:] == [0.5, 0.5]
    assert targets([0.0, -30.0], 0.3)[1] == pytest.approx(0.3)


def two_skewed():
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (2,)))
    both = [dist.Gumbel(8.0, 1.0).log_prob(jnp.array([side, 1.0]) * x + 4.0) for side in (1, -1)]
    numpyro.factor("density", jnp.logaddexp(both[0].sum(), both[1].sum()))


def test_many_components_share_the_rounds_of_annealing(monkeypatch):
    # As many as a single component has: `test_a_killed_run_goes_on_to_the_same_result`.
    monkeypatch.setattr("numpyro_onestep.training.mixture._MAX_ANNEALING", 2)
    settings = dataclasses.replace(SETTINGS, max_rounds=1)
    target = build_target(jax.random.key(0), two_skewed)
    mixture, history = train(target, jax.random.key(2), settings)
    assert len(mixture.components) == 2
    assert len(history.losses) == 2 * (1 + 1) * settings.num_updates


def test_training_leaves_time_for_what_follows(target):
    """It ends once a round has shown how long draws take, however far away the deadline is."""
    method = dataclasses.replace(SETTINGS, target_ess=1.0, max_rounds=6)
    _, history = train(target, jax.random.key(0), method, time_limit=1e5, num_after=10**12)
    assert history.stopped == "time limit"
    assert len(history.ess_fraction) == 2


def test_a_budget_is_spent_before_a_round_that_it_has_no_time_for():
    budget = Budget(time.perf_counter() + 100.0, num_after=1000)
    assert not budget.is_spent(seconds_per_draw=0.01, seconds_per_round=50.0)
    assert budget.is_spent(seconds_per_draw=0.01, seconds_per_round=95.0)
    assert budget.is_spent(seconds_per_draw=0.2)
    assert not Budget().is_spent(seconds_per_draw=1.0, seconds_per_round=1e6)


def test_pace_is_known_after_a_round():
    """A first one bounds what gradients take, and later ones say what draws and rounds do."""
    pace = Pace()
    assert pace.known == (0.0, 0.0)
    pace.add(100, 8.0, 1000, 10.0)
    assert pace.known == (0.01, 10.0)
    pace.add(100, 0.5, 1000, 4.0)
    pace.add(100, 0.7, 1000, 3.0)
    assert pace.known == (0.005, 3.0)


# Rounds of a spike-and-slab posterior: shares of effective draws, and affinities.
SHARES = [0.07, 0.04, 0.01, 0.04, 0.05, 0.07, 0.04]
AFFINITIES = [0.51, 0.38, 0.34, 0.45, 0.52, 0.52, 0.54]


@pytest.mark.parametrize(
    ("ess_fraction", "affinity", "ends"),
    [
        # The target twice; once may be luck.
        ([0.5, 0.81, 0.83], [0.8, 0.95, 0.95], True),
        ([0.5, 0.7, 0.83], [0.8, 0.92, 0.95], False),
        # Shares that a single weight decides, while the sampler comes closer.
        (SHARES, AFFINITIES, False),
        # Neither grows.
        ([*SHARES[:4], 0.03, 0.04, 0.02], [*AFFINITIES[:4], 0.45, 0.44, 0.43], True),
        # Most draws are effective, and what they gain hardly shows in the affinity.
        ([0.3, 0.70, 0.71, 0.73, 0.75], [0.8, 0.935, 0.937, 0.94, 0.944], False),
        # Training has not yet made up for its first steps: the start is no round of it.
        ([0.2, 0.02, 0.06, 0.05, 0.08], [0.7, 0.4, 0.45, 0.5, 0.55], False),
        # Too early to tell.
        (SHARES[:4], [0.5, 0.5, 0.5, 0.5], False),
    ],
)
def test_when_training_ends(ess_fraction, affinity, ends):
    method = ResampleMove(target_ess=0.8, patience=3)
    assert is_enough(ess_fraction, affinity, method, 0.8) is ends
