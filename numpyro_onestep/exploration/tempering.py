r"""Tempered sequential Monte Carlo from the prior to the posterior.

A population follows `p_0^(1 - beta) gamma^beta` from the prior `p_0` at beta = 0 to the posterior
at beta = 1 (Del Moral, Doucet and Jasra, 2006). A step is as long as most of the particles stay
effective; the first one starts from many more draws of the prior (see `survey`), so that what few
of them have met is not lost at once. After resampling, the particles move by Metropolis steps along
differences of other particles (ter Braak, 2006): these know the scales and the correlations of the
population, carry particles from mode to mode, and ask for no gradient. Half of the population moves
along the differences of the other half, in turns, so that each move leaves the present density
invariant.

In many dimensions such steps are too short to follow the temperature, and the particles are left
where little has to be followed, as in the neck of a hierarchy. Most of the moves there are
Metropolis-adjusted Langevin steps (Roberts and Rosenthal, 1998), with the covariance of the other
half, shrunk towards its diagonal, as their scale.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep.compilation import compiled
from numpyro_onestep.exploration.survey import Survey
from numpyro_onestep.host_random import host_generator
from numpyro_onestep.target import Target, over_points

# Particles: a share of the survey's draws within these bounds, so that cheap models have more.
_SURVEYED_PER_PARTICLE = 64
_MIN_PARTICLES, _MAX_PARTICLES = 1024, 4096
_MAX_ROUNDS = 60
# Rounds at the posterior itself: they even out what resampling has left of each mode.
_LAST_ROUNDS = 8
# Share of the particles that stay effective from one temperature to the next; of the survey's
# draws, as many as so many times the particles are enough.
_MIN_EFFECTIVE = 0.7
_ENOUGH_EFFECTIVE = 4
# Of half the population each: fewer where the model is dear, by the evaluations that a survey may
# make. Fewer particles instead would meet less at the start, and find less.
_AFFORDABLE_PER_SWEEP = 64
_MIN_SWEEPS, _MAX_SWEEPS = 4, 16
# Bisections for the length of a step, on a logarithmic scale.
_BISECTIONS = 40
_SHORTEST = 1e-12
# Share of the moves along random directions instead: differences alone never leave the space that
# few survivors span.
_RANDOM_MOVES = 0.3
# Half of the moves are shortened at random, down to exp(-8): scales within a mode, and those of a
# needle that a single particle has met.
_SHORTENED = 8.0
# Dimensions from which on most sweeps are Langevin moves, and the bounds on sweeps there, of which
# two are of the other kind and two find scores. Steps are multiples of d^(-1/6) scales: most of
# nearly the full length, some down to exp(-4) of it. Correlations of n particles are shrunk by so
# many times d / n.
MANY_DIMENSIONS = 16
_MIN_MANY_SWEEPS, _MAX_MANY_SWEEPS = 6, 12
_STEP, _SHORTENED_STEP = 1.2, 4.0
_SHRUNK = 2.0


class Particles(NamedTuple):
    """A population that stands for the posterior, `n` of each.

    Attributes:
        points: unconstrained, `(n, dim)`.
        log_density: of the target, `(n,)`.
        temperature: inverse temperature that was reached: 1 where it is the posterior's.
        num_densities: evaluations of the target's log-density alone, those of the survey included.
        num_gradients: with its gradient.
    """

    points: np.ndarray
    log_density: np.ndarray
    temperature: float
    num_densities: int
    num_gradients: int


# Points, log-density of the prior, of the target.
_Population = tuple[jax.Array, jax.Array, jax.Array]
# The same with the scores of the tempered density, `(n, dim)`.
_WithScores = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
# Uniform and normal ones of a sweep.
_Numbers = tuple[jax.Array, jax.Array]


def temper(
    target: Target, survey: Survey, rng_key: jax.Array, *, deadline: float = math.inf
) -> Particles:
    """Carries draws of the prior to the posterior.

    Ends early, at the temperature that it has reached, after the deadline (of
    `time.perf_counter`) or too many temperatures.
    """
    # Random numbers from the host: JAX's own would double the time of compilation.
    generator = host_generator(rng_key)
    dtype, dim = survey.points.dtype, survey.points.shape[1]
    num = min(max(len(survey.points) // _SURVEYED_PER_PARTICLE, _MIN_PARTICLES), _MAX_PARTICLES)
    num_sweeps = survey.num_affordable // _AFFORDABLE_PER_SWEEP
    num_langevin = 0
    if dim < MANY_DIMENSIONS:
        num_sweeps = min(max(num_sweeps, _MIN_SWEEPS), _MAX_SWEEPS)
    else:
        num_sweeps = min(max(num_sweeps, _MIN_MANY_SWEEPS), _MAX_MANY_SWEEPS) // 2 * 2
        num_langevin = num_sweeps - 2
    half = num // 2
    population: tuple = survey[:3]
    beta, num_rounds, num_last = 0.0, 0, 0
    while num_last < _LAST_ROUNDS and num_rounds < _MAX_ROUNDS and time.perf_counter() < deadline:
        log_prior, log_gamma = (np.asarray(part, np.float64) for part in population[1:])
        beta, weight = _next_temperature(beta, log_prior, log_gamma, _ENOUGH_EFFECTIVE * num)
        ancestors = _resample(weight, num, generator.random())
        # Twins go to different halves.
        ancestors = ancestors.reshape(half, 2).T.reshape(-1)
        uniform = generator.random((num_sweeps, 6, half)).astype(dtype)
        noise = generator.standard_normal((num_sweeps, half, dim)).astype(dtype)
        population = _move(
            target,
            tuple(np.asarray(part)[ancestors] for part in population),
            np.asarray(beta, dtype),
            uniform,
            noise,
            num_langevin,
        )
        num_rounds += 1
        num_last += beta == 1.0
    # Without a single round these are draws of the prior.
    points, _, log_density = (part[:num] for part in population)
    num_densities = len(survey.points) + num_rounds * (num_sweeps - num_langevin) * half
    num_gradients = num_rounds * num_langevin * half
    return Particles(
        np.asarray(points), np.asarray(log_density), beta, num_densities, num_gradients
    )


def _next_temperature(
    beta: float, log_prior: np.ndarray, log_gamma: np.ndarray, enough: int
) -> tuple[float, np.ndarray]:
    """The next inverse temperature, and unnormalised weights `(n,)` that lead there.

    It leaves `_MIN_EFFECTIVE` of the particles effective, or `enough` of them.
    """
    usable = np.isfinite(log_prior) & np.isfinite(log_gamma)
    log_ratio = np.where(usable, log_gamma - np.where(usable, log_prior, 0.0), -np.inf)
    top = log_ratio.max() if usable.any() else 0.0
    wanted = min(_MIN_EFFECTIVE * usable.sum(), enough)

    def weight(step: float) -> np.ndarray:
        return np.where(usable, np.exp(step * np.where(usable, log_ratio - top, 0.0)), 0.0)

    def is_enough(step: float) -> bool:
        w = weight(step)
        return bool(w.sum() ** 2 >= wanted * (w**2).sum())

    rest = 1.0 - beta
    if is_enough(rest):
        return 1.0, weight(rest)
    low, high = math.log(_SHORTEST), math.log(rest)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_enough(math.exp(middle)) else (low, middle)
    step = math.exp(low)
    return min(beta + step, 1.0), weight(step)


def _resample(weight: np.ndarray, num: int, offset: float) -> np.ndarray:
    """Systematic resampling: `(n,)` weights to `num` indices in order."""
    edges = np.cumsum(weight) / weight.sum()
    ticks = (np.arange(num) + offset) / num
    return np.clip(np.searchsorted(edges, ticks), 0, len(weight) - 1)


@compiled(static_argnames="num_langevin")
def _move(
    target: Target,
    population: _Population,
    beta: jax.Array,
    uniform: jax.Array,
    noise: jax.Array,
    num_langevin: int,
) -> _Population:
    """Sweeps over both halves of the population at one temperature.

    Args:
        target: the model.
        population: `n` particles.
        beta: the inverse temperature, `()`.
        uniform: random numbers, `(sweeps, 6, n / 2)`.
        noise: of a standard normal, `(sweeps, n / 2, dim)`.
        num_langevin: how many of the sweeps, the first ones, are Langevin moves.
    """
    if num_langevin:
        # What is not finite is not known yet.
        start = (*population, jnp.full_like(population[0], jnp.nan))
        numbers = (uniform[:num_langevin], noise[:num_langevin])
        moved, _ = jax.lax.scan(functools.partial(_langevin_sweep, target, beta), start, numbers)
        population = moved[:3]
    numbers = (uniform[num_langevin:], noise[num_langevin:])
    return jax.lax.scan(functools.partial(_sweep, target, beta), population, numbers)[0]


def _sweep(
    target: Target, beta: jax.Array, population: _Population, numbers: _Numbers
) -> tuple[_Population, None]:
    """Moves the first half along differences of the second, and exchanges the halves."""
    uniform, noise = numbers
    half, dim = noise.shape
    x, log_prior, log_gamma = (part[:half] for part in population)
    rest = population[0][half:]
    first = (uniform[0] * half).astype(int)
    second = (first + 1 + (uniform[1] * (half - 1)).astype(int)) % half
    along = rest[first] - rest[second]
    along = jnp.where((uniform[2] < _RANDOM_MOVES)[:, None], noise * rest.std(axis=0), along)
    size = 2.38 / jnp.sqrt(2.0 * dim) * jnp.exp(-_SHORTENED * jnp.maximum(2 * uniform[3] - 1, 0))
    # Whole differences, now and then: they lead from mode to mode.
    size = jnp.where(uniform[4] < 0.1, 1.0, size)
    proposal = x + size[:, None] * along
    new_prior, new_gamma = over_points(
        lambda p: (target.log_prior(p), target.log_density(p)), target, proposal
    )
    log_ratio = (1.0 - beta) * (new_prior - log_prior) + beta * (new_gamma - log_gamma)
    # A comparison with NaN is false.
    accept = jnp.log(uniform[5]) < log_ratio
    accept &= jnp.isfinite(new_gamma) & jnp.isfinite(new_prior)
    return _exchanged(population, accept, (proposal, new_prior, new_gamma)), None


def _langevin_sweep(
    target: Target, beta: jax.Array, population: _WithScores, numbers: _Numbers
) -> tuple[_WithScores, None]:
    """Moves the first half along its scores, and exchanges the halves.

    A point whose score is not known stays where it is, and finds it.
    """
    uniform, noise = numbers
    half, dim = noise.shape
    x, log_prior, log_gamma, score = (part[:half] for part in population)

    def tempered(p: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        prior, gamma = target.log_prior(p), target.log_density(p)
        return (1.0 - beta) * prior + beta * gamma, (prior, gamma)

    size = (_STEP * dim ** (-1.0 / 6.0) * jnp.exp(-_SHORTENED_STEP * uniform[3] ** 3))[:, None]
    sd, root = _scales(population[0][half:])

    def whitened(score: jax.Array) -> jax.Array:
        return score * sd if root is None else (score * sd) @ root

    unknown = ~jnp.isfinite(score).all(-1)
    forward = noise + 0.5 * size * whitened(score)
    proposal = x + size * sd * (forward if root is None else forward @ root.T)
    proposal = jnp.where(unknown[:, None], x, proposal)
    (value, (new_prior, new_gamma)), new_score = over_points(
        jax.value_and_grad(tempered, has_aux=True), target, proposal
    )
    # The noise that would lead back.
    backward = forward + 0.5 * size * whitened(new_score)
    log_ratio = value - (1.0 - beta) * log_prior - beta * log_gamma
    log_ratio += 0.5 * ((noise**2).sum(-1) - (backward**2).sum(-1))
    accept = (jnp.log(uniform[5]) < log_ratio) | unknown
    accept &= jnp.isfinite(new_gamma) & jnp.isfinite(new_prior) & jnp.isfinite(new_score).all(-1)
    return _exchanged(population, accept, (proposal, new_prior, new_gamma, new_score)), None


def _scales(points: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Standard deviations `(dim,)` of `points: (n, dim)` and a root of their shrunk correlations.

    The root, `(dim, dim)`, is None where nothing is left of correlations.
    """
    num, dim = points.shape
    sd = points.std(axis=0)
    kept = 1.0 - _SHRUNK * dim / num
    if kept <= 0.0:
        return sd, None
    standard = (points - points.mean(axis=0)) / jnp.where(sd > 0.0, sd, 1.0)
    correlation = kept * standard.T @ standard / num + (1.0 - kept) * jnp.eye(dim, dtype=sd.dtype)
    return sd, jnp.linalg.cholesky(correlation)


def _exchanged(
    population: tuple[jax.Array, ...], accept: jax.Array, proposal: tuple[jax.Array, ...]
) -> Any:
    """The second half, then the first one, moved where it is accepted, `(n / 2,)`."""
    half = len(accept)

    def exchanged(old: jax.Array, new: jax.Array) -> jax.Array:
        chosen = accept.reshape(half, *(1,) * (old.ndim - 1))
        return jnp.concatenate([old[half:], jnp.where(chosen, new, old[:half])])

    return tuple(exchanged(old, new) for old, new in zip(population, proposal, strict=True))
