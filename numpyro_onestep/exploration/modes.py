"""Separate modes of a posterior: Gaussian fits from particles that no fit has reached yet."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import jax
import numpy as np
from scipy.linalg import solve_triangular

from numpyro_onestep.exploration.between import (
    NUM_BETWEEN,
    are_separate,
    bhattacharyya,
    has_valley,
)
from numpyro_onestep.exploration.path import in_coordinates, path_of
from numpyro_onestep.exploration.survey import Survey, survey
from numpyro_onestep.exploration.tempering import Particles, temper
from numpyro_onestep.preconditioner import START_SCALE, Affine, GaussianFit, fit_gaussian
from numpyro_onestep.target import (
    Target,
    can_be_double,
    in_double,
    recentred_points,
    rounding_errors,
    users_target,
)

# Modes with a smaller share of the evidence, by their lower bounds, change nothing that anyone
# reports.
_NEGLIGIBLE = 1e-4
# A fit this close to a mode's bears no witness of anything else: 95 % of the two overlap.
_SAME = 0.05
# A Gaussian fit with a standard deviation beyond this has found no posterior.
_MAX_SCALE = 1e10
# Fits in a row without a new mode after which the search ends, and at least as many as there are
# modes: the more there are, the longer it takes to meet the last ones by chance.
_PATIENCE = 3
# Gradients beyond which fits that bring no news are too dear to go on.
_MAX_GRADIENTS = 2**20
# A fit that starts from a particle starts as wide as so many of those next to it lie apart: a start
# of any fixed width passes over a needle in it. In units of the population's scale.
_NUM_NEXT = 8
_SMALLEST_SCALE = 1e-5
# Nats by which a particle within a fit may be denser than the fit says: beyond, it is in a needle.
_UNEXPLAINED = 4.0
# Particles that are kept, by the evaluations that a survey may make: the checks move each of them
# along the posterior.
_AFFORDABLE_PER_WITNESS = 4
MIN_WITNESSES, _MAX_WITNESSES = 256, 1024
# Points of the strategy for initial values: they join the draws of the prior.
_NUM_INITIAL = 64
# The densest particles, and nats by which single precision may be off there.
_NUM_DENSEST = 256
_MAX_ROUNDING_ERROR = 1.0


@dataclasses.dataclass
class Exploration:
    """What was found before any training.

    Attributes:
        particles: the tempered population, or every so many of it.
        modes: one fit per separate mode, the best first; at least one.
        rivals: the other fits, without those that are nearly a mode's.
        unreached: share of the particles, in [0, 1], that no fit reaches.
        undefined_share: share of the prior's draws, in [0, 1], at which the log-density is NaN.
        in_double: whether the log-density has to be computed in double precision.
        too_many: whether there are more modes than wanted.
        num_gradients: gradients of the target that the fits and tempering took.
        num_densities: evaluations of its log-density by the survey, tempering, and between modes;
            at the most, as fits that overlap need none between them.
        stopped: "" or why it ended early ("interrupted", "time limit").
        diverged: whether no fit ended at a posterior of finite scale.
    """

    particles: Particles
    modes: tuple[GaussianFit, ...]
    rivals: tuple[GaussianFit, ...]
    unreached: float = 0.0
    undefined_share: float = 0.0
    in_double: bool = False
    too_many: bool = False
    num_gradients: int = 0
    num_densities: int = 0
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
    initial = users_target(target).initial_points(key_start, _NUM_INITIAL)
    starts = recentred_points(target, initial)
    target, surveyed, particles = _tempered(target, initial, key_prior, key_temper, deadline)
    # As many densities on the way from a mode to the particles as the survey had.
    num_ways = min(max(len(surveyed.points) // NUM_BETWEEN, 1), len(particles.points))
    search = _Search(target, np.asarray(starts), particles, max_modes, known, num_ways)
    for fit in fitted:
        search.add(fit)
    stopped = ""
    try:
        while search.wants_more(num_starts):
            if time.perf_counter() > deadline and search.fits:
                stopped = "time limit"
                break
            (start, scale), key = search.next_start(), jax.random.fold_in(key_fit, len(search.fits))
            search.add(fit_gaussian(target, start, scale, key))
    except KeyboardInterrupt:
        # Without a fit there is nothing worth keeping.
        if not search.fits:
            raise
        stopped = "interrupted"
    num_witnesses = surveyed.num_affordable // _AFFORDABLE_PER_WITNESS
    num_witnesses = min(max(num_witnesses, MIN_WITNESSES), _MAX_WITNESSES)
    return search.result(stopped, surveyed.undefined_share, num_witnesses)


def _tempered(
    target: Target,
    initial: jax.Array,
    key_prior: jax.Array,
    key_temper: jax.Array,
    deadline: float,
) -> tuple[Target, Survey, Particles]:
    """The target, in double precision where single precision leads astray, and its population."""
    path = path_of(target)
    starts = recentred_points(path, initial)
    surveyed = survey(path, starts, key_prior)
    particles = temper(path, surveyed, key_temper, deadline=deadline)
    densest = np.argsort(-np.nan_to_num(particles.log_density, nan=-np.inf))[:_NUM_DENSEST]
    errors = rounding_errors(path, particles.points[densest], particles.log_density[densest])
    if errors.max() > _MAX_ROUNDING_ERROR and can_be_double(target):
        target, path = in_double(target), in_double(path)
        surveyed = survey(path, starts, key_prior)
        again = temper(path, surveyed, key_temper, deadline=deadline)
        particles = again._replace(
            num_densities=particles.num_densities + again.num_densities,
            num_gradients=particles.num_gradients + again.num_gradients,
        )
    return target, surveyed, in_coordinates(target, path, particles)


class _Search:
    """The fits so far, which of them are modes, and which particles they reach."""

    def __init__(
        self,
        target: Target,
        starts: np.ndarray,
        particles: Particles,
        max_modes: int,
        known: Sequence[jax.Array],
        num_ways: int,
    ) -> None:
        self.target = target
        self.max_modes = max_modes
        self.particles = particles
        self.fits: list[GaussianFit] = []
        self.modes: list[int] = []
        # Whether each fit ended at something that is there.
        self._sound: list[bool] = []
        self._starts = starts
        self._known = [np.asarray(point) for point in known]
        self._num_known = len(known)
        points = np.asarray(particles.points, np.float64)
        self._log_density = np.asarray(particles.log_density, np.float64)
        # What has no density or no place is nowhere to start from.
        usable = np.isfinite(points).all(axis=1) & np.isfinite(self._log_density)
        self._points = np.where(usable[:, None], points, 0.0)
        self._usable = usable
        self._reached, self._tried = ~usable, ~usable
        # Without a valley on the way from some mode, as far as anyone has looked; and from which
        # modes somebody has.
        self._uphill = np.zeros(len(usable), bool)
        self._looked: set[int] = set()
        self._num_ways = num_ways
        self._num_between = 0
        self._without_news = 0
        self._num_initial = 0

    @property
    def unreached(self) -> float:
        return float(np.mean(~self._reached))

    @property
    def num_gradients(self) -> int:
        return sum(int(fit.num_gradients) for fit in self.fits)

    def wants_more(self, num_starts: int) -> bool:
        if len(self.fits) < num_starts + self._num_known:
            # Where fits are that dear, a second one that says the same must do.
            return self._without_news < 1 or self.num_gradients < _MAX_GRADIENTS
        patience = max(_PATIENCE, len(self.modes))
        return self._without_news < patience and len(self.modes) <= self.max_modes

    def next_start(self) -> tuple[np.ndarray, np.ndarray]:
        """Where a fit starts and with which standard deviations, `(dim,)` each.

        Known points; a particle that no fit has reached, with the scale of those around it: the
        densest beyond a valley, if any, or the densest of all; the strategy's points. The two last
        in turns, once the particles bring no news.
        """
        usual = np.full_like(self._starts[0], START_SCALE)
        # In every run, needed or not: what a run has compiled serves its refits.
        self._look_for_valleys()
        if self._known:
            return self._known.pop(), usual
        open_ = ~self._reached & ~self._tried
        if self._without_news % 2 == 1 or not open_.any():
            self._num_initial += 1
            return self._starts[(self._num_initial - 1) % len(self._starts)], usual
        beyond = open_ & ~self._uphill
        wanted = beyond if beyond.any() else open_
        best = int(np.argmax(np.where(wanted, self._log_density, -np.inf)))
        self._tried[best] = True
        return self._points[best].astype(usual.dtype), self._scale_at(best).astype(usual.dtype)

    def _look_for_valleys(self) -> None:
        """Finds out which particles lie beyond a valley from the modes that are new.

        In many dimensions tempering leaves particles in the outskirts, where no fit reaches them,
        but the way to their own mode leads uphill.
        """
        for index in self.modes:
            left = np.flatnonzero(self._usable & ~self._uphill)
            if index in self._looked or not left.size:
                continue
            self._looked.add(index)
            densest = left[np.argsort(-self._log_density[left])][: self._num_ways]
            # Repeated to one length: one program.
            ends = self._points[np.resize(densest, self._num_ways)].astype(self._starts.dtype)
            beyond = has_valley(self.target, self.fits[index].affine.mean, ends)
            self._num_between += NUM_BETWEEN * self._num_ways
            self._uphill[left] = True
            self._uphill[densest] = ~beyond[: len(densest)]

    def _scale_at(self, index: int) -> np.ndarray:
        """Standard deviations `(dim,)` of the particles next to one of them."""
        points = np.unique(self._points[self._usable], axis=0)
        if len(points) < _NUM_NEXT:
            return np.full(self.target.dim, START_SCALE)
        low, high = np.quantile(points, (0.16, 0.84), axis=0)
        unit = np.maximum(0.5 * (high - low), np.finfo(self._starts.dtype).tiny)
        distance = (((points - self._points[index]) / unit) ** 2).sum(axis=1)
        scale = points[np.argsort(distance)[:_NUM_NEXT]].std(axis=0)
        return np.maximum(scale, _SMALLEST_SCALE * unit)

    def add(self, fit: GaussianFit) -> None:
        index = len(self.fits)
        self.fits.append(jax.block_until_ready(fit))
        self._without_news += 1
        self._sound.append(_is_finite(fit) and self._is_precise(fit))
        if not self._sound[-1]:
            return
        self._reached |= self._is_reached_by(fit)
        places = range(len(self.modes))
        apart = [bhattacharyya(self.fits[self.modes[i]].affine, fit.affine) for i in places]
        # The nearest first: what belongs to two modes must not take the place of the other one.
        for place in np.argsort(apart):
            known = self.fits[self.modes[place]]
            self._num_between += NUM_BETWEEN
            if not are_separate(self.target, known.affine, fit.affine):
                if fit.bound > known.bound:
                    self.modes[place] = index
                return
        self.modes.append(index)
        self._without_news = 0

    def _is_precise(self, fit: GaussianFit) -> bool:
        """Nobody looks unless single precision has gone astray already."""
        if not self.target.in_double:
            return True
        densest = np.argmax(np.where(self._usable, self._log_density, -np.inf))
        return _is_precise(self.target, fit, self._points[densest])

    def _is_reached_by(self, fit: GaussianFit) -> np.ndarray:
        """Which particles lie within a fit, `(n,)`, and are about as dense as it says."""
        distance = ((_whiten(fit.affine, self._points)) ** 2).sum(axis=1)
        dim = self.target.dim
        # Three standard deviations of the squared radius of a normal, and three of one coordinate.
        within = distance <= dim + 3.0 * math.sqrt(2.0 * dim) + 9.0
        volume = float(fit.affine.log_det) + 0.5 * dim * math.log(2.0 * math.pi)
        return within & (self._log_density <= fit.bound - 0.5 * distance - volume + _UNEXPLAINED)

    def result(self, stopped: str, undefined_share: float, num_witnesses: int) -> Exploration:
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
            particles=_thinned(self.particles, num_witnesses),
            modes=chosen,
            rivals=tuple(
                fit
                for i, fit in enumerate(self.fits)
                if i not in modes and self._sound[i] and _is_apart(fit, chosen)
            ),
            unreached=self.unreached,
            undefined_share=undefined_share,
            in_double=self.target.in_double,
            too_many=len(self.modes) > self.max_modes,
            num_gradients=self.num_gradients + self.particles.num_gradients,
            num_densities=self.particles.num_densities + self._num_between,
            stopped=stopped,
            diverged=diverged,
        )


def _thinned(particles: Particles, num: int) -> Particles:
    stride = max(len(particles.points) // num, 1)
    points, log_density = particles.points[::stride], particles.log_density[::stride]
    return particles._replace(points=points, log_density=log_density)


def _is_finite(fit: GaussianFit) -> bool:
    # Along a direction in which the density has no end, the scale doubles with every few steps.
    factor = np.abs(np.asarray(fit.affine.factor))
    return bool(factor.max() < _MAX_SCALE and factor.diagonal().min() > 0.0) and math.isfinite(
        fit.bound
    )


def _is_precise(target: Target, fit: GaussianFit, known: np.ndarray) -> bool:
    """Whether single precision serves around a fit, and on the way there from a point `(dim,)`.

    Where terms have cancelled altogether both precisions agree on a number that means nothing; it
    takes a way through a region where they do not to get there.
    """
    mean, factor = (np.asarray(part) for part in (fit.affine.mean, fit.affine.factor))
    way = np.linspace(known, mean, NUM_BETWEEN)
    points = np.concatenate([way, mean + factor.T, mean - factor.T]).astype(mean.dtype)
    return bool(rounding_errors(target, points).max() <= _MAX_ROUNDING_ERROR)


def _is_apart(fit: GaussianFit, modes: Sequence[GaussianFit]) -> bool:
    return min(bhattacharyya(mode.affine, fit.affine) for mode in modes) > _SAME


def _whiten(affine: Affine, x: np.ndarray) -> np.ndarray:
    """Points `(n, dim)` in the coordinates of a fit."""
    factor = np.asarray(affine.factor, np.float64)
    return solve_triangular(factor, (x - np.asarray(affine.mean, np.float64)).T, lower=True).T
