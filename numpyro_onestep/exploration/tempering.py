r"""Tempered sequential Monte Carlo from the prior to the posterior.

A population follows `p_0^(1 - beta) gamma^beta` from the prior `p_0` at beta = 0 to the posterior
at beta = 1 (Del Moral, Doucet and Jasra, 2006). A step is as long as most of the particles stay
effective. After resampling, the particles move by Metropolis steps along differences of other
particles (ter Braak, 2006): these know the scales and the correlations of the population, carry
particles from mode to mode, and ask for no gradient. Half of the population moves along the
differences of the other half, in turns, so that each move leaves the present density invariant.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_onestep.host_random import host_generator
from numpyro_onestep.target import Target, over_points

_MAX_ROUNDS = 60
# Rounds at the posterior itself: they even out what resampling has left of each mode.
_LAST_ROUNDS = 8
# Share of the particles that stay effective from one temperature to the next.
_MIN_EFFECTIVE = 0.7
# Of half the population each.
_SWEEPS = 16
# Bisections for the length of a step, on a logarithmic scale.
_BISECTIONS = 40
_SHORTEST = 1e-12
# Share of the moves along random directions instead: differences alone never leave the space that
# few survivors span.
_RANDOM_MOVES = 0.3
# Half of the moves are shortened at random, down to exp(-4): scales within a mode.
_SHORTENED = 4.0


class Particles(NamedTuple):
    """A population that stands for the posterior, `n` of each.

    Attributes:
        points: unconstrained, `(n, dim)`.
        log_density: of the target, `(n,)`.
        temperature: inverse temperature that was reached: 1 where it is the posterior's.
        num_evaluations: of the target's log-density.
    """

    points: jax.Array
    log_density: jax.Array
    temperature: float
    num_evaluations: int


# Points, log-density of the prior, of the target.
_Population = tuple[jax.Array, jax.Array, jax.Array]


class _State(NamedTuple):
    x: jax.Array
    log_prior: jax.Array
    log_gamma: jax.Array
    beta: jax.Array


def temper(
    target: Target, points: jax.Array, rng_key: jax.Array, *, deadline: float = math.inf
) -> Particles:
    """Carries `points: (n, dim)`, draws of the prior, to the posterior; `n` is even.

    Ends early, at the temperature that it has reached, after the deadline (of
    `time.perf_counter`) or too many temperatures.
    """
    # Random numbers from the host: JAX's own would double the time of compilation.
    generator = host_generator(rng_key)
    dtype, half = points.dtype, len(points) // 2
    unknown = jnp.full(len(points), -jnp.inf, dtype)
    state = _State(points, unknown, unknown, jnp.zeros((), dtype))
    num_rounds, num_last = 0, 0
    while num_last < _LAST_ROUNDS and num_rounds < _MAX_ROUNDS and time.perf_counter() < deadline:
        uniform = generator.random((_SWEEPS + 1, 6, half)).astype(dtype)
        noise = generator.standard_normal((_SWEEPS, half, points.shape[1])).astype(dtype)
        state = _advance(target, state, jnp.asarray(num_rounds == 0), uniform, noise)
        num_rounds += 1
        num_last += bool(state.beta == 1.0)
    num_evaluations = num_rounds * _SWEEPS * half
    return Particles(state.x, state.log_gamma, float(state.beta), num_evaluations)


@jax.jit
def _advance(
    target: Target, state: _State, begins: jax.Array, uniform: jax.Array, noise: jax.Array
) -> _State:
    """To the next temperature; the first time round only finds out the densities of the points.

    Args:
        target: the model.
        state: `n` particles.
        begins: whether this is the first time.
        uniform: random numbers, `(sweeps + 1, 6, n / 2)`.
        noise: of a standard normal, `(sweeps, n / 2, dim)`.
    """
    num = len(state.x)
    half = num // 2
    log_ratio = state.log_gamma - state.log_prior
    usable = jnp.isfinite(state.log_gamma) & jnp.isfinite(state.log_prior)
    log_ratio = jnp.where(usable, log_ratio, -jnp.inf)
    beta, weight = _next_temperature(state.beta, log_ratio, usable.sum())
    # Twins go to different halves.
    ancestors = _resample(weight, uniform[-1, 0, 0]).reshape(half, 2).T.reshape(-1)
    ancestors = jnp.where(begins, jnp.arange(num), ancestors)
    beta = jnp.where(begins, 0.0, beta)
    population = (state.x[ancestors], state.log_prior[ancestors], state.log_gamma[ancestors])

    def evaluate(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return over_points(lambda p: (target.log_prior(p), target.log_density(p)), target, x)

    move = functools.partial(_sweep, evaluate, beta, begins)
    numbers = (jnp.arange(_SWEEPS), uniform[:-1], noise)
    x, log_prior, log_gamma = jax.lax.scan(move, population, numbers)[0]
    return _State(x, log_prior, log_gamma, beta)


def _next_temperature(
    beta: jax.Array, log_ratio: jax.Array, num_usable: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The next inverse temperature, and unnormalised weights that lead there."""
    top = jnp.maximum(jnp.max(log_ratio), jnp.finfo(log_ratio.dtype).min)

    def weight(step: jax.Array) -> jax.Array:
        return jnp.where(log_ratio > -jnp.inf, jnp.exp(step * (log_ratio - top)), 0.0)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        w = weight(jnp.exp(middle))
        enough = w.sum() ** 2 >= _MIN_EFFECTIVE * num_usable * (w**2).sum()
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    rest = jnp.log(1.0 - beta)
    w = weight(1.0 - beta)
    last = w.sum() ** 2 >= _MIN_EFFECTIVE * num_usable * (w**2).sum()
    start = (jnp.full_like(rest, jnp.log(_SHORTEST)), rest)
    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, start)
    step = jnp.where(last, 1.0 - beta, jnp.exp(jnp.minimum(low, rest)))
    return jnp.where(last, 1.0, beta + step), weight(step)


def _resample(weight: jax.Array, offset: jax.Array) -> jax.Array:
    """Systematic resampling: `(n,)` weights to `(n,)` indices in order."""
    num = len(weight)
    edges = jnp.cumsum(weight) / weight.sum()
    return jnp.clip(jnp.searchsorted(edges, (jnp.arange(num) + offset) / num), 0, num - 1)


def _sweep(
    evaluate: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    beta: jax.Array,
    begins: jax.Array,
    population: _Population,
    numbers: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[_Population, None]:
    """Moves the first half of the population, and exchanges the halves."""
    i, uniform, noise = numbers
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
    # Each half once: nothing moves, the densities become known.
    learning = begins & (i < 2)
    proposal = jnp.where(learning, x, x + size[:, None] * along)
    new_prior, new_gamma = evaluate(proposal)
    log_ratio = (1.0 - beta) * (new_prior - log_prior) + beta * (new_gamma - log_gamma)
    # A comparison with NaN is false.
    accept = jnp.log(uniform[5]) < log_ratio
    accept &= jnp.isfinite(new_gamma) & jnp.isfinite(new_prior)
    accept |= learning
    x = jnp.concatenate([rest, jnp.where(accept[:, None], proposal, x)])
    log_prior = jnp.concatenate([population[1][half:], jnp.where(accept, new_prior, log_prior)])
    log_gamma = jnp.concatenate([population[2][half:], jnp.where(accept, new_gamma, log_gamma)])
    return (x, log_prior, log_gamma), None
