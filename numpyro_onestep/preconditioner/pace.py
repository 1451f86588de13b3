r"""The pace of a Gaussian fit from draws: how long its steps are, and when it has arrived.

Lengths are divergences in nats, to second order: a move of the mean by `m` standard deviations and
of the log-scales by `s` changes the fit by `|m|^2 / 2 + |s|^2`. While there is a way to go,
successive steps agree; around the optimum their noise is all that is left, and one step takes back
what the one before it did (Pflug, 1990). There, steps at the rate `rho` keep a fit short of its
bound by their own length over `2 rho`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

SCALES, CORRELATIONS, REFINING, ARRIVED = range(4)
"""Phases. Means and scales first, correlations next: a few hundred noisy products cannot estimate
the correlations of scales that still differ by orders of magnitude."""

# Steps of each phase at the most: with correlations, and without.
_DENSE = (60, 90, 150)
_DIAGONAL = (150, 0, 150)
# Where a fit begins that has its correlations.
_WHERE_REFINING_BEGINS = 50
RATE = 0.5
_LAST_RATE = 0.02
# Steps by which those that are short and disagree with the last must lead the others.
_LEAD = 5
# Nats below which agreement means nothing, and length of a step above which noise hides it.
_NEGLIGIBLE = 1e-4
_NOISY = 0.01
# Nats that noise may cost, for so many steps running; the lower bound is averaged over them.
_MAX_LOSS = 1e-3
NUM_SETTLED = 8


class Pace(NamedTuple):
    """Where a fit is on its way.

    Attributes:
        phase: one of those above, `()`.
        step: number of the step within it, `()`.
        tally: in the first phases by how much disagreement leads; then steps running whose noise
            costs little, `()`.
        move: last move of the mean in standard deviations of the fit, `(dim,)`.
        log_scale: last change of the log-scales: symmetric, `(dim, dim)`, or `(dim,)`.
    """

    phase: jax.Array
    step: jax.Array
    tally: jax.Array
    move: jax.Array
    log_scale: jax.Array

    @property
    def rate(self) -> jax.Array:
        """Share of a Newton step that is taken: constant, then falling quadratically."""
        remaining = jnp.where(self.phase < REFINING, 1.0, 1.0 - self.step / _DENSE[REFINING])
        return jnp.maximum(RATE * remaining**2, _LAST_RATE)


def begin(like: jax.Array, *, dense: bool, refining: bool = False) -> Pace:
    """The pace before the first step, of the dimension and the type of `like: (dim,)`."""
    phase = jnp.asarray(REFINING if refining else SCALES)
    step = jnp.asarray(_WHERE_REFINING_BEGINS if refining else 0)
    log_scale = jnp.zeros(like.shape * 2 if dense else like.shape, like.dtype)
    return Pace(phase, step, jnp.zeros((), int), jnp.zeros_like(like), log_scale)


def max_steps(*, refining: bool = False) -> int:
    """Steps of all phases together, at the most."""
    return _DENSE[REFINING] - _WHERE_REFINING_BEGINS if refining else sum(_DENSE)


def after(
    pace: Pace, move: jax.Array, log_scale: jax.Array, *, dense: bool, whole: jax.Array
) -> Pace:
    """The pace after a step; where `whole`, all phases but the first are taken to their ends."""
    agreement = _product(pace.move, pace.log_scale, move, log_scale)
    length = _product(move, log_scale, move, log_scale)
    goes_on = (agreement > _NEGLIGIBLE) | (length > _NOISY)
    lead = jnp.maximum(pace.tally + jnp.where(goes_on, -1, 1), 0)
    loss = length / (2.0 * pace.rate)
    settled = jnp.where(loss < _MAX_LOSS, pace.tally + 1, 0)
    refining = pace.phase == REFINING
    count = jnp.where(refining, settled, lead)
    is_there = count >= jnp.where(refining, NUM_SETTLED, _LEAD)
    is_there &= (pace.phase == SCALES) | ~whole
    limit = jnp.asarray(_DENSE if dense else _DIAGONAL)[pace.phase]
    ends = is_there | (pace.step + 1 >= limit)
    # Without correlations there is no phase for them.
    following = pace.phase + jnp.where((pace.phase == SCALES) & (not dense), 2, 1)
    return Pace(
        jnp.where(ends, following, pace.phase),
        jnp.where(ends, 0, pace.step + 1),
        jnp.where(ends, 0, count),
        move,
        log_scale,
    )


def _product(
    move: jax.Array, log_scale: jax.Array, other_move: jax.Array, other_log_scale: jax.Array
) -> jax.Array:
    """Inner product of two steps, in nats: of a step with itself, its length."""
    return 0.5 * (move * other_move).sum() + (log_scale * other_log_scale).sum()
