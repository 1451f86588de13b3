r"""Separate modes of a posterior: Gaussian fits from particles that no fit has reached yet.

Two fits are one mode unless they hardly overlap, by Bhattacharyya's distance

    D = (m_1 - m_2)' S^-1 (m_1 - m_2) / 8 + log(|S| / sqrt(|S_1| |S_2|)) / 2,  S = (S_1 + S_2) / 2,

and the log-density dips on the straight line between their centres.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular

from numpyro_onestep.exploration.tempering import Particles, temper
from numpyro_onestep.preconditioner import NUM_FIT_GRADIENTS, Affine, GaussianFit, fit_gaussian
from numpyro_onestep.target import Target, starting_points

NUM_PARTICLES = 1024
# Equal normal densities are that far apart at 4 standard deviations; there the log-density at half
# the way is 1.3 below the ends.
_SEPARATE = 2.0
_DIP = 1.0
_NUM_BETWEEN = 33
# Modes with a smaller share of the evidence, by their lower bounds, change nothing that anyone
# reports.
_NEGLIGIBLE = 1e-4
# A Gaussian fit with a standard deviation beyond this has found no posterior.
_MAX_SCALE = 1e10
# Fits in a row without a new mode after which the search ends, and at least as many as there are
# modes: the more there are, the longer it takes to meet the last ones by chance.
_PATIENCE = 3
# Points of the strategy for initial values: they join the draws of the prior.
_NUM_INITIAL = 64


@dataclasses.dataclass
class Exploration:
    """What was found before any training.

    Attributes:
        particles: the tempered population.
        modes: one fit per separate mode, the best first; at least one.
        rivals: the other fits.
        unreached: share of the particles, in [0, 1], that no fit reaches.
        too_many: whether there are more modes than wanted.
        num_gradients: gradients of the target that the fits took, and evaluations of the particles.
        stopped: "" or why it ended early ("interrupted", "time limit").
        diverged: whether no fit ended at a posterior of finite scale.
    """

    particles: Particles
    modes: tuple[GaussianFit, ...]
    rivals: tuple[GaussianFit, ...]
    unreached: float = 0.0
    too_many: bool = False
    num_gradients: int = 0
    stopped: str = ""
    diverged: bool = False


def explore(
    target: Target,
    rng_key: jax.Array,
    num_starts: int,
    max_modes: int,
    *,
    known: Sequence[jax.Array] = (),
    fitted: Sequence[GaussianFit] = (),
    deadline: float = math.inf,
) -> Exploration:
    """Looks for the modes of the target.

    Ctrl-C and the deadline end the search with what it has found, once there is a fit.

    Args:
        target: the model.
        rng_key: for all of it.
        num_starts: Gaussian fits at the least: from particles that no fit has reached, from the
            points of the model's strategy for initial values where there are none.
        max_modes: number of modes beyond which the search ends.
        known: points that fits start from before all others, `(dim,)` each.
        fitted: fits that there are already; they count among those at the least.
        deadline: time of `time.perf_counter` from which on no other fit starts.
    """
    key_start, key_prior, key_temper, key_fit = (jax.random.fold_in(rng_key, i) for i in range(4))
    starts = starting_points(target, key_start, _NUM_INITIAL)
    points = _prior_points(target, key_prior, NUM_PARTICLES - _NUM_INITIAL)
    points = jnp.concatenate([starts, points])
    particles = temper(target, points, key_temper, deadline=deadline)
    search = _Search(target, np.asarray(starts), particles, max_modes, known)
    for fit in fitted:
        search.add(fit)
    stopped = ""
    try:
        while search.wants_more(num_starts):
            if time.perf_counter() > deadline and search.fits:
                stopped = "time limit"
                break
            start, key = search.next_start(), jax.random.fold_in(key_fit, len(search.fits))
            search.add(fit_gaussian(target, jnp.asarray(start), key))
    except KeyboardInterrupt:
        # Without a fit there is nothing worth keeping.
        if not search.fits:
            raise
        stopped = "interrupted"
    return search.result(stopped)


@functools.partial(jax.jit, static_argnames="num")
def _prior_points(target: Target, rng_key: jax.Array, num: int) -> jax.Array:
    return target.prior_points(rng_key, num)


class _Search:
    """The fits so far, which of them are modes, and which particles they reach."""

    def __init__(
        self,
        target: Target,
        starts: np.ndarray,
        particles: Particles,
        max_modes: int,
        known: Sequence[jax.Array],
    ) -> None:
        self.target = target
        self.max_modes = max_modes
        self.particles = particles
        self.fits: list[GaussianFit] = []
        self.modes: list[int] = []
        self._starts = starts
        self._known = [np.asarray(point) for point in known]
        self._num_known = len(known)
        self._points = np.asarray(particles.points, np.float64)
        self._log_density = np.asarray(particles.log_density, np.float64)
        # What has no density or no place is nowhere to start from.
        usable = np.isfinite(self._points).all(axis=1) & np.isfinite(self._log_density)
        self._reached, self._tried = ~usable, ~usable
        self._without_news = 0
        self._num_initial = 0

    @property
    def unreached(self) -> float:
        return float(np.mean(~self._reached))

    def wants_more(self, num_starts: int) -> bool:
        if len(self.fits) < num_starts + self._num_known:
            return True
        patience = max(_PATIENCE, len(self.modes))
        return self._without_news < patience and len(self.modes) <= self.max_modes

    def next_start(self) -> np.ndarray:
        """Known points; the densest particle that no fit has reached; the strategy's points.

        The two last in turns, once the particles bring no news.
        """
        if self._known:
            return self._known.pop()
        open_ = ~self._reached & ~self._tried
        if self._without_news % 2 == 1 or not open_.any():
            self._num_initial += 1
            return self._starts[(self._num_initial - 1) % len(self._starts)]
        best = int(np.argmax(np.where(open_, self._log_density, -np.inf)))
        self._tried[best] = True
        return np.asarray(self._points[best], self._starts.dtype)

    def add(self, fit: GaussianFit) -> None:
        index = len(self.fits)
        self.fits.append(jax.block_until_ready(fit))
        self._without_news += 1
        if not _is_finite(fit):
            return
        distance = ((_whiten(fit.affine, self._points)) ** 2).sum(axis=1)
        dim = self.target.dim
        # Three standard deviations of the squared radius of a normal, and three of one coordinate.
        self._reached |= distance <= dim + 3.0 * math.sqrt(2.0 * dim) + 9.0
        for place, known in enumerate(self.modes):
            if not _are_separate(self.target, self.fits[known].affine, fit.affine):
                if fit.bound > self.fits[known].bound:
                    self.modes[place] = index
                return
        self.modes.append(index)
        self._without_news = 0

    def result(self, stopped: str) -> Exploration:
        modes = list(self.modes)
        log_evidence = np.array([self.fits[i].bound for i in modes])
        if len(modes):
            share = np.exp(log_evidence - np.logaddexp.reduce(log_evidence))
            order = np.argsort(-share)
            modes = [modes[i] for i in order if share[i] >= _NEGLIGIBLE]
        diverged = not modes
        if diverged:
            modes = [int(np.argmax(np.nan_to_num([fit.bound for fit in self.fits], nan=-np.inf)))]
        chosen = tuple(self.fits[i] for i in modes)
        return Exploration(
            particles=self.particles,
            modes=chosen,
            rivals=tuple(fit for i, fit in enumerate(self.fits) if i not in modes),
            unreached=self.unreached,
            too_many=len(self.modes) > self.max_modes,
            num_gradients=NUM_FIT_GRADIENTS * len(self.fits) + self.particles.num_evaluations,
            stopped=stopped,
            diverged=diverged,
        )


def _is_finite(fit: GaussianFit) -> bool:
    # Along a direction in which the density has no end, the scale doubles with every few steps.
    scale = np.abs(np.asarray(fit.affine.factor)).max()
    return bool(scale < _MAX_SCALE) and math.isfinite(fit.bound)


def _whiten(affine: Affine, x: np.ndarray) -> np.ndarray:
    """Points `(n, dim)` in the coordinates of a fit."""
    factor = np.asarray(affine.factor, np.float64)
    return solve_triangular(factor, (x - np.asarray(affine.mean, np.float64)).T, lower=True).T


def _are_separate(target: Target, a: Affine, b: Affine) -> bool:
    if bhattacharyya(a, b) < _SEPARATE:
        return False
    share = jnp.linspace(0.0, 1.0, _NUM_BETWEEN, dtype=a.mean.dtype)
    values = np.asarray(_profile(target, a.mean, b.mean, share), np.float64)
    # A line through a region without density has a dip if anything has.
    values = np.where(np.isfinite(values), values, -np.inf)
    return bool(min(values[0], values[-1]) - values.min() > _DIP)


def bhattacharyya(a: Affine, b: Affine) -> float:
    """Bhattacharyya's distance: minus the log of the overlap of two fits' densities."""
    factors = [np.asarray(affine.factor, np.float64) for affine in (a, b)]
    stacked = np.concatenate([f.T for f in factors]) / math.sqrt(2.0)
    root = np.asarray(np.linalg.qr(stacked, mode="r")).T
    shift = np.asarray(a.mean, np.float64) - np.asarray(b.mean, np.float64)
    between = np.linalg.solve(root, shift)
    log_volumes = [np.log(np.abs(np.diagonal(f))).sum() for f in (root, *factors)]
    return float(between @ between / 8.0 + log_volumes[0] - 0.5 * sum(log_volumes[1:]))


@jax.jit
def _profile(target: Target, a: jax.Array, b: jax.Array, share: jax.Array) -> jax.Array:
    return jax.vmap(lambda s: target.log_density((1.0 - s) * a + s * b))(share)
