"""Witnesses: points of the posterior that the sampler did not propose, under its weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep import flow as flows
from numpyro_onestep.diagnostics.limits import MIN_MISSED
from numpyro_onestep.exploration import MIN_WITNESSES
from numpyro_onestep.host_random import host_generator
from numpyro_onestep.importance import evidence
from numpyro_onestep.inference.drawing import Part, WeightedDraws
from numpyro_onestep.preconditioner import Affine, Bent, unbent
from numpyro_onestep.target import Target
from numpyro_onestep.training import (
    Draws,
    MovedPoints,
    TrainedMixture,
    TrainedSampler,
    draw,
    log_weight_at,
    move,
    move_settings,
)

# Nats above the largest weight of a draw from which on a point counts as out of reach.
_MARGIN = 1.0
# Transitions of a walk: as many as it took to enter the dropped neck of a funnel.
NUM_MOVES = 20
# Particles that have not settled walk on, twice as long each time: in many dimensions tempering
# leaves some of them in the outskirts.
_WALKS = tuple(NUM_MOVES * 2**i for i in range(7))
# Standard errors by which more must come back from out of reach than go there, for a longer walk;
# share of those out of reach that may stand still on the last one.
_SETTLED, _MAX_STILL = 2.0, 0.1
# Log-share of the evidence that is nothing, whatever the volume is off by; standard deviations by
# which a log-density may lie below its mean.
_LOG_NEGLIGIBLE, _SPREAD = -10.0, 3.0
# Of one place: spread of log-densities in units of a normal's, standard errors that a bound allows
# for, and points that it takes.
_ONE_PLACE, _BOUND_ERRORS, _MIN_POINTS = 1.5, 3.0, 10
# Points that walk together, by particles that are kept.
_WALKING_PER_PARTICLE = 2
# Transitions of the points of a rival, which start where the sampler was not.
NUM_RIVAL_MOVES = 5


class Walk(NamedTuple):
    """Points after moves along the posterior.

    Attributes:
        log_weight: that the sampler would give to them, `(n,)`.
        known: whether their preimage was found, `(n,)`.
        row: which point each was before, `(n,)`.
        points: in the coordinates of the preconditioner, `(n, dim)`.
        log_density: of the component there, `(n,)`.
        acceptance: share of accepted moves.
    """

    log_weight: np.ndarray
    known: np.ndarray
    row: np.ndarray
    points: np.ndarray
    log_density: np.ndarray
    acceptance: float


class Missed(NamedTuple):
    """What witnesses find out of the sampler's reach.

    Attributes:
        share: of the evidence, in [0, 1].
        num_gradients: gradients of the target that it took to find out.
    """

    share: float
    num_gradients: int


def num_walking(mixture: TrainedMixture, chunk: int) -> int:
    """Points that walk together, for which a program exists: those of a chunk.

    Where evaluations are dear, and the exploration has kept few particles, twice as many as those.
    """
    return min(chunk, _WALKING_PER_PARTICLE * len(mixture.particles))


def least_walking(chunk: int) -> int:
    """The same where evaluations are dearest."""
    return min(chunk, _WALKING_PER_PARTICLE * MIN_WITNESSES)


def by_component(
    parts: Sequence[Part], label: np.ndarray, num: int
) -> Iterator[tuple[int, Part, np.ndarray]]:
    """Rows of each component, repeated to one length: one program for all."""
    for c, part in enumerate(parts):
        mine = np.flatnonzero(label == c)
        if mine.size:
            yield c, part, np.resize(mine, num)


def walk_from(
    part: Part, start: Draws, rows: np.ndarray, rng_key: jax.Array, num_moves: int = NUM_MOVES
) -> tuple[Walk, Draws]:
    """Moves the points in `start`, which are the `rows` of some array, without resampling.

    Beside the walk it returns where another one may go on.
    """
    moved = _move(part.target, part.sampler.affine, start, part.sampler, 0.0, num_moves, rng_key)
    log_weight, known = log_weight_at(part.steps, moved.points, moved.log_density)
    walk = Walk(
        np.asarray(log_weight, np.float64) - part.log_share,
        np.asarray(known),
        rows[np.asarray(moved.ancestors)],
        np.asarray(moved.points),
        np.asarray(moved.log_density, np.float64),
        float(moved.acceptance),
    )
    end = start._replace(image=moved.points, log_density=moved.log_density, score=moved.score)
    return walk, end


def joined(walks: Sequence[Walk], label: np.ndarray) -> Walk:
    """The walks of all components, each without its repetitions."""
    sizes = [min(int(np.sum(label == label[walk.row[0]])), len(walk.row)) for walk in walks]
    log_weight, known, row, points, log_density = (
        np.concatenate([part[:size] for part, size in zip(parts, sizes, strict=True)])
        for parts in zip(*(walk[:-1] for walk in walks), strict=True)
    )
    acceptance = np.average([walk.acceptance for walk in walks], weights=sizes)
    return Walk(log_weight, known, row, points, log_density, float(acceptance))


def _move(
    target: Target,
    affine: Affine,
    draws: Draws,
    sampler: TrainedSampler,
    max_weight: float,
    num_moves: int,
    rng_key: jax.Array,
) -> MovedPoints:
    settings = move_settings(sampler.step_size, 1.0, max_weight, num_moves)
    return move(target, affine, draws, *settings, rng_key)


def rival_share(
    target: Target,
    mixture: TrainedMixture,
    parts: Sequence[Part],
    draws: WeightedDraws,
    log_evidence: float,
    num: int,
    rng_key: jax.Array,
) -> Missed:
    """Largest share of the evidence that a Gaussian fit from another start puts out of reach.

    The fit draws, weighs and moves `num` points of its own. Those whose weight under the sampler
    exceeds that of every draw (beyond `_MARGIN`), or has no preimage, are out of reach; the fit's
    own importance estimate of the evidence, times their share, is what the sampler misses there.
    """
    identity = flows.identity(parts[0].steps)
    worst = 0.0
    affine = parts[0].sampler.affine
    for i, fit in enumerate(mixture.rivals):
        # Of the same kind as the sampler's, for which programs exist.
        rival = unbent(fit, len(affine.weights)) if isinstance(affine, Bent) else fit
        key_draw, key_move, key_label = (jax.random.fold_in(rng_key, 3 * i + j) for j in range(3))
        own = draw(target, rival, identity, key_draw, num)
        own_weight = np.asarray(own.log_weight, np.float64)
        if not np.isfinite(own_weight).any():
            continue
        moved = _move(target, rival, own, parts[0].sampler, np.inf, NUM_RIVAL_MOVES, key_move)
        points = rival.forward(moved.points)
        log_density = moved.log_density - rival.log_det_at(moved.points)
        beyond = _beyond(mixture, parts, draws, points, log_density, key_label)
        # Finite draws only: a rival is a witness, not a judge, and may be a poor one.
        local = evidence(np.where(np.isfinite(own_weight), own_weight, -np.inf)).log_evidence
        missed = local + np.log(max(beyond, 1e-300))
        worst = max(worst, float(np.exp(missed - np.logaddexp(missed, log_evidence))))
    return Missed(worst, len(mixture.rivals) * num * (1 + NUM_RIVAL_MOVES))


def particle_share(
    mixture: TrainedMixture,
    parts: Sequence[Part],
    first: Sequence[Draws],
    draws: WeightedDraws,
    log_evidence: float,
    num: int,
    rng_key: jax.Array,
    *,
    deadline: float = math.inf,
) -> Missed:
    """Share of the particles of the exploration that lead out of the sampler's reach.

    They are moved along the posterior first: tempering alone leaves some of them in its outskirts.
    What is out of reach after a walk may be on its way; it counts once a longer walk does not bring
    it back. Walks leave the posterior invariant: into a part that the sampler misses as many
    particles go as come from there, or none do. After the deadline (of `time.perf_counter`) no walk
    is longer: what is out of reach counts, unless it is negligible.

    Tempering may leave more particles in a neck than belong there, and moves take none of them out:
    where their own log-densities say so (see `_log_share_bound`), they count for less.
    """
    known = np.flatnonzero(np.isfinite(mixture.particle_log_density))
    if not known.size:
        return Missed(0.0, 0)
    points, log_density = mixture.particles[known], mixture.particle_log_density[known]
    log_rho = _log_responsibility(mixture, points)
    label = _labels(log_rho, rng_key)
    groups = list(by_component(parts, label, num))
    starts = []
    for c, part, rows in groups:
        affine = part.sampler.affine
        start = jax.tree.map(lambda leaf: leaf[:num], first[c])
        image = affine.inverse(points[rows])
        volume = np.asarray(affine.log_det_at(image))
        start = start._replace(
            image=image,
            log_density=log_density[rows] + log_rho[rows, c] + volume,
            score=jnp.asarray(np.full(start.score.shape, np.nan, start.score.dtype)),
        )
        starts.append(start)
    before: tuple[Walk, np.ndarray] | None = None
    settled, total = False, 0
    for num_moves in _WALKS:
        walks = []
        for i, (c, part, rows) in enumerate(groups):
            key = jax.random.fold_in(jax.random.fold_in(rng_key, c), num_moves)
            walk, starts[i] = walk_from(part, starts[i], rows, key, num_moves)
            walks.append(walk)
        total += num_moves * sum(len(rows) for _, _, rows in groups)
        walk = joined(walks, label)
        beyond = _is_beyond(draws, walk.log_weight, walk.known)
        beyond &= ~_is_negligible(walk, beyond, log_evidence)
        settled = before is not None and _has_settled(before, walk, beyond)
        if beyond.mean() <= MIN_MISSED or settled or time.perf_counter() > deadline:
            break
        before = walk, beyond
    if before is None or not settled:
        return Missed(float(beyond.mean()), total)
    share = 0.0
    for c in np.unique(label[walk.row]):
        here, there = (mask & (label[walk.row] == c) for mask in (before[1], beyond))
        bound = _log_share_bound(before[0], here, walk, there, log_evidence)
        share += min(float(there.mean()), math.exp(min(bound, 0.0)))
    return Missed(share, total)


def _log_share_bound(
    before: Walk, here: np.ndarray, after: Walk, there: np.ndarray, log_evidence: float
) -> float:
    r"""Upper bound on the log-share of a place of the evidence, from the points that walk in it.

    There `log Z = E[log gamma] + H`, and no law with these standard deviations has a larger entropy
    H than independent normals. Another law than the posterior's gives less, and so may a place that
    is two: infinity, therefore, where the points still climb or spread on the walk, or where their
    log-densities differ by more than those of a normal.

    Args:
        before: the points before the last walk.
        here: which of them were in the place, `(n,)`.
        after: the same points after it.
        there: which of them are in the place now, `(n,)`.
        log_evidence: of the whole posterior.
    """
    num, dim = len(np.unique(after.row[there])), after.points.shape[1]
    if min(num, here.sum()) < _MIN_POINTS:
        return math.inf
    points, earlier = after.points[there], before.points[here]
    log_density, spread = after.log_density[there], after.log_density[there].std(ddof=1)
    if not spread <= _ONE_PLACE * math.sqrt(0.5 * dim) or not np.ptp(points, axis=0).all():
        return math.inf
    size = np.log(points.std(axis=0, ddof=1)).sum()
    mean, error = log_density.mean(), math.sqrt((spread**2 + 0.5 * dim) / num)
    allowed = _SETTLED * math.sqrt(2.0) * error
    climbed = mean - before.log_density[here].mean()
    with np.errstate(divide="ignore"):
        grown = size - np.log(earlier.std(axis=0, ddof=1)).sum()
    if climbed > allowed or grown > allowed:
        return math.inf
    return float(mean + _entropy(dim, size) + _BOUND_ERRORS * error - log_evidence)


def _is_negligible(walk: Walk, beyond: np.ndarray, log_evidence: float) -> np.ndarray:
    """Which of the points out of reach lie too low to matter, however wide the place is; `(n,)`.

    Tempering can end in a place of no account, of which nothing leads to the posterior. A normal of
    log-evidence `e` and entropy `h` has log-densities around `e - h`, within a few `sqrt(d / 2)`.
    The place is taken to be as wide as the points in it or, where that is more, the sampler's part.
    """
    if not beyond.any():
        return beyond
    dim = walk.points.shape[1]
    sd = np.maximum(walk.points[beyond].std(axis=0), 1.0)
    highest = walk.log_density + _entropy(dim, np.log(sd).sum()) + _SPREAD * math.sqrt(dim / 2.0)
    return highest < log_evidence + _LOG_NEGLIGIBLE


def _entropy(dim: int, log_size: float) -> float:
    """Of independent normals, by the sum of the logarithms of their standard deviations."""
    return 0.5 * dim * (1.0 + math.log(2.0 * math.pi)) + log_size


def _has_settled(before: tuple[Walk, np.ndarray], walk: Walk, beyond: np.ndarray) -> bool:
    """Whether no more particles come back than by chance, of those that move at all.

    Takes the walk before and the last one, each with a mask `(n,)` of those out of reach.
    """
    still = (before[0].points == walk.points).all(axis=1) & beyond
    if still.sum() > _MAX_STILL * beyond.sum():
        return False
    back, gone = np.sum(before[1] & ~beyond), np.sum(beyond & ~before[1])
    return bool(back - gone <= _SETTLED * np.sqrt(back + gone))


def _log_responsibility(mixture: TrainedMixture, points: jax.Array | np.ndarray) -> np.ndarray:
    """`(n, dim)` to `(n, num_components)`; a point belongs to a component with its probability."""
    if mixture.partition is None:
        return np.zeros((len(points), 1), points.dtype)
    return np.asarray(jax.vmap(mixture.partition.log_responsibility)(jnp.asarray(points)))


def _labels(log_rho: np.ndarray, rng_key: jax.Array) -> np.ndarray:
    """One component per point, `(n,)`, drawn with the probabilities `exp(log_rho)`."""
    noise = host_generator(rng_key).gumbel(size=log_rho.shape)
    return np.argmax(log_rho + noise, axis=1)


def _is_beyond(draws: WeightedDraws, log_weight: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which points have a larger weight than every draw, or an unknown one."""
    largest = np.max(draws.log_weight, initial=-np.inf, where=np.isfinite(draws.log_weight))
    return ~known | (log_weight > largest + _MARGIN)


def _beyond(
    mixture: TrainedMixture,
    parts: Sequence[Part],
    draws: WeightedDraws,
    points: jax.Array,
    log_density: jax.Array,
    rng_key: jax.Array,
) -> float:
    """Share of posterior points whose weight exceeds that of every draw, or is unknown.

    The points, `(n, dim)`, are unconstrained; `log_density` is that of the
    target there, `(n,)`.
    """
    log_rho = _log_responsibility(mixture, points)
    label = _labels(log_rho, rng_key)
    beyond = np.zeros(len(points), bool)
    for c in np.unique(label):
        part, affine = parts[c], parts[c].sampler.affine
        image = affine.inverse(points)
        own = log_density + log_rho[:, c] + affine.log_det_at(image)
        log_weight, known = (np.asarray(a) for a in log_weight_at(part.steps, image, own))
        beyond |= (label == c) & _is_beyond(draws, log_weight - part.log_share, known)
    return float(np.mean(beyond))
