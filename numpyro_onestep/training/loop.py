r"""The training loop.

A round (1) draws from the sampler with exact weights, (2) resamples and moves the draws, (3)
descends the objectives on fresh draws and on the moved points of the last rounds. The share of
effective draws of every round is that of fresh draws; when neither it nor their affinity to
the target grows any longer, the learning rate falls over a few last rounds.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import struct

from numpyro_onestep import flow as flows
from numpyro_onestep.compilation import cancel
from numpyro_onestep.flow import Flow
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Affine, Bent, Density, bent_as
from numpyro_onestep.target import Target
from numpyro_onestep.training.budget import Budget, Pace
from numpyro_onestep.training.draws import Draws, affinity, draw, ess_and_evidence
from numpyro_onestep.training.enough import is_enough, is_normal, serves, suffices
from numpyro_onestep.training.journal import NO_JOURNAL, Journal
from numpyro_onestep.training.methods import Method
from numpyro_onestep.training.moves import (
    MovedPoints,
    adapted_step_size,
    initial_step_size,
    move,
    training_settings,
)
from numpyro_onestep.training.outer import funnel_axes, may_have_axes, outer_factors
from numpyro_onestep.training.start import best_bends, best_start
from numpyro_onestep.training.updates import begin, improve, map_of

# Share of the best round's effective draws below which the last updates were an accident.
_ACCIDENT = 0.5


@dataclasses.dataclass(frozen=True)
class _AfterRound:
    """Everything that the next rounds depend on.

    Attributes:
        num_rounds: rounds done.
        leaves: of the `State`: the optimiser's has classes of its own.
        step_size: of MALA.
        buffer: the moved points in use.
        annealed: rounds of annealing done; negative before the first.
        best: share of effective draws of the best round, and leaves of the parameters it drew with.
        outer_factors: where outer points of training lie, if there are any.
        affine: the coordinates.
        history: until now.
    """

    num_rounds: int
    leaves: list[jax.Array]
    step_size: np.ndarray
    buffer: list[MovedPoints]
    annealed: int
    best: tuple[float, list[jax.Array]]
    outer_factors: np.ndarray | None
    affine: Affine
    history: TrainingHistory


@dataclasses.dataclass
class TrainingHistory:
    """What happened, by round and by optimiser step.

    Attributes:
        ess_fraction: share of effective draws before each round.
        affinity: squared Bhattacharyya coefficient of draws and target then (see `draws.affinity`).
        log_evidence: estimate from the draws before each round, in nats.
        acceptance: share of accepted moves per round.
        losses: size of the update's gradient per optimiser step: the surrogates have no values.
        gaussian_elbo: evidence lower bound per step of the Gaussian fit, in nats.
        num_gradients: gradients of the target's log-density, everything included.
        num_densities: evaluations of the log-density without a gradient.
        undefined_share: share of the prior's draws, in [0, 1], at which the log-density is NaN.
        stopped: "" or why training ended early ("interrupted", "time limit", an error at run time).
        diverged: whether the fit or its gradients ceased to be finite.
        seconds: wall time of training, compilation included.
    """

    ess_fraction: list[float] = dataclasses.field(default_factory=list)
    affinity: list[float] = dataclasses.field(default_factory=list)
    log_evidence: list[float] = dataclasses.field(default_factory=list)
    acceptance: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    gaussian_elbo: list[float] = dataclasses.field(default_factory=list)
    num_gradients: int = 0
    num_densities: int = 0
    undefined_share: float = 0.0
    stopped: str = ""
    diverged: bool = False
    seconds: float = 0.0

    def extend(self, other: TrainingHistory) -> None:
        """Adds what happened afterwards; its wall time and its Gaussian fit do not count."""
        self.ess_fraction += other.ess_fraction
        self.affinity += other.affinity
        self.log_evidence += other.log_evidence
        self.acceptance += other.acceptance
        self.losses += other.losses
        self.num_gradients += other.num_gradients
        self.num_densities += other.num_densities
        self.stopped = self.stopped or other.stopped
        self.diverged = self.diverged or other.diverged


@dataclasses.dataclass(frozen=True)
class Oversight:
    """Who watches a training.

    Attributes:
        budget: how long it may take.
        on_round: called with the number of each round and the history until then.
        journal: where it is noted what is done.
    """

    budget: Budget
    on_round: Callable[[int, TrainingHistory], None]
    journal: Journal


@struct.dataclass
class TrainedSampler:
    """A trained sampler for one component: everything that drawing needs.

    Attributes:
        affine: the preconditioner.
        params: parameters of the flow.
        step_size: of MALA, adapted.
        flow: the map; static.
    """

    affine: Affine
    params: Params
    step_size: jax.Array | np.ndarray
    flow: Flow = struct.field(pytree_node=False)

    def steps(self, target: Target, num_steps: int) -> Any:
        """The map in `num_steps` steps, for the target that it was trained for."""
        return map_of(self.flow, num_steps, self.params, Density(target, self.affine))


def train_component(
    target: Target,
    fit: Affine,
    rng_key: jax.Array,
    method: Method,
    oversight: Oversight,
    *,
    warm: TrainedSampler | None = None,
    target_ess: float | None = None,
) -> tuple[TrainedSampler, TrainingHistory]:
    """Trains a sampler for a target from a Gaussian fit to it.

    Ctrl-C and the budget (checked between rounds) end training with what there is, and so does an
    error at run time after the first round. A `warm` sampler gives the parameters and the step size
    to start with; where its draws reach the target twice as they are, there is no training. A
    component may have a `target_ess` of its own in place of the method's.
    """
    history = TrainingHistory()
    # Folding compiles less than unpacking a split, here and in every round.
    key_init, key_rounds, key_teacher = (jax.random.fold_in(rng_key, i) for i in range(3))
    density, instructor = Density(target, method.preconditioner(fit)), method.teacher
    teach = None
    if instructor is not None:
        # A key of its own: the student's numbers are those that it has without a teacher.
        teach = functools.partial(_train_teacher, density, key_teacher, instructor, oversight)
    sampler = _train_rounds(
        density,
        key_rounds,
        method,
        history,
        oversight,
        key_init=key_init,
        warm=warm,
        teach=teach,
        target_ess=target_ess,
    )
    return sampler, history


_Taught = tuple[TrainedSampler, TrainingHistory]


def _train_teacher(
    density: Density,
    rng_key: jax.Array,
    method: Method,
    oversight: Oversight,
) -> _Taught:
    """The teacher and its record, in half of the time that is left."""

    def make() -> _Taught:
        record = TrainingHistory()
        halfway = Budget(0.5 * (time.perf_counter() + oversight.budget.deadline))
        journal = oversight.journal.within("teacher")
        within = dataclasses.replace(oversight, budget=halfway, journal=journal)
        return _train_rounds(density, rng_key, method, record, within), record

    return oversight.journal.once("teacher", make, is_done=lambda taught: not taught[1].stopped)


def _train_rounds(
    density: Density,
    key_rounds: jax.Array,
    method: Method,
    history: TrainingHistory,
    oversight: Oversight,
    *,
    key_init: jax.Array | None = None,
    warm: TrainedSampler | None = None,
    teach: Callable[[], _Taught] | None = None,
    target_ess: float | None = None,
) -> TrainedSampler:
    """Rounds in given coordinates; writes the history. `teach` comes before the first update."""
    target, affine = density.target, density.affine
    budget, journal = oversight.budget, oversight.journal
    flow = method.flow(target.dim)
    key_init = jax.random.fold_in(key_rounds, 2**30) if key_init is None else key_init
    key_start = jax.random.fold_in(key_rounds, 2**29)
    plain = method.normal_flow(target.dim)
    # Not static in the programs of a round: all components share them.
    wanted = method.target_ess if target_ess is None else target_ess
    if warm is not None and warm.flow != flow:
        # No network was trained on the old data.
        warm = None
    if warm is not None and isinstance(warm.affine, Bent):
        # What was learned was learned in these coordinates.
        affine = bent_as(affine, warm.affine)
        density = Density(target, affine)
    params = flow.init(key_init) if warm is None else warm.params
    state = begin(method, params)
    step_size = initial_step_size(affine.mean) if warm is None else np.asarray(warm.step_size)
    buffer: list[MovedPoints] = []
    teacher: TrainedSampler | None = None
    # Rounds of annealing done so far; negative before the first.
    annealed, num_done = -1, 0
    pace = Pace()
    best = (0.0, state.average)
    of_fit: Draws | None = None
    factors: np.ndarray | None = None

    def draw_fit() -> Draws:
        """Draws of the Gaussian fit itself."""
        identity = flows.identity(map_of(flow, 1, params, density))
        history.num_gradients += method.num_points
        return draw(target, affine, identity, key_start, method.num_points)

    noted: _AfterRound | None = journal.recall("rounds")
    if noted is not None:
        state = jax.tree.unflatten(jax.tree.structure(state), noted.leaves)
        step_size, buffer = noted.step_size, noted.buffer
        annealed, num_done = noted.annealed, noted.num_rounds
        factors, affine = noted.outer_factors, noted.affine
        density = Density(target, affine)
        best = (noted.best[0], jax.tree.unflatten(jax.tree.structure(params), noted.best[1]))
        history.__dict__.update(vars(copy.deepcopy(noted.history)))
    reused = warm is not None and not history.losses
    try:
        if warm is None and noted is None and plain is not None:
            of_fit = draw_fit()
            is_done = is_normal(of_fit, method)
            num_ridges = 0 if is_done or budget.is_spent() else method.num_ridges(target.dim)
            if num_ridges:
                identity = flows.identity(map_of(flow, 1, params, density))
                affine, of_fit, num_gradients = best_bends(
                    target, affine, num_ridges, identity, of_fit, key_start
                )
                density = Density(target, affine)
                history.num_gradients += num_gradients
                is_done = isinstance(affine, Bent) and suffices(of_fit)
            if is_done:
                # Such a posterior needs no network, nor the tails of the untrained one.
                _record(history, of_fit)
                cancel()
                return TrainedSampler(affine, plain.init(key_init), step_size, plain)
            if not budget.is_spent():
                params, num_gradients = best_start(density, flow, method, params, of_fit, key_start)
                history.num_gradients += num_gradients
                state = begin(method, params)
                best = (0.0, state.average)
        for i in range(num_done, method.max_rounds + method.num_annealing):
            if history.stopped:
                break
            key_draw, key_move, key_improve = (
                jax.random.fold_in(key_rounds, 3 * i + j) for j in range(3)
            )
            steps = map_of(flow, method.num_sampling_steps, state.average, density)
            began = time.perf_counter()
            draws = draw(target, affine, steps, key_draw, method.num_points)
            _record(history, draws)
            drawn = time.perf_counter()
            best = max(best, (history.ess_fraction[-1], state.average), key=lambda pair: pair[0])
            reused = reused and serves(draws, history.ess_fraction[-1], method)
            if reused:
                # What was learned from other data will do, once fresh draws have said so twice.
                history.num_gradients += method.num_points
                if len(history.ess_fraction) > 1:
                    break
                continue
            enough = i == method.max_rounds or is_enough(
                history.ess_fraction, history.affinity, method, wanted
            )
            if annealed >= 0 or enough:
                annealed += 1
            limit = budget.is_spent(*pace.known)
            if limit:
                history.stopped = "time limit"
            if history.diverged or limit:
                break
            if teach is not None and teacher is None:
                teacher, record = teach()
                if noted is None:
                    history.num_gradients += record.num_gradients
                if record.stopped:
                    # Another attempt has a better teacher.
                    journal = NO_JOURNAL
                if record.stopped == "interrupted" or budget.is_spent():
                    history.stopped = record.stopped or "time limit"
                    break
            settings = training_settings(step_size, method.num_points, method.num_moves)
            moved = move(target, affine, draws, *settings, key_move)
            step_size = adapted_step_size(step_size, float(moved.acceptance))
            # The first round stands in for those that are still missing: one shape, one program.
            buffer = (buffer or [moved] * (method.num_buffered - 1)) + [moved]
            buffer = buffer[-method.num_buffered :]
            done = np.array([len(history.losses), annealed], np.int32)
            if factors is None and method.num_outer(target.dim):
                axes = np.zeros((target.dim, 0))
                if may_have_axes(target):
                    axes = funnel_axes(of_fit or draw_fit())
                factors = outer_factors(axes).astype(affine.mean.dtype)
            state, losses = improve(
                density, flow, method, state, tuple(buffer), teacher, key_improve, done, factors
            )
            history.acceptance.append(float(moved.acceptance))
            history.losses.extend(np.asarray(losses, float).tolist())
            num_gradients = method.num_points * (1 + method.num_moves)
            num_gradients += method.num_updates * method.gradients_per_update
            history.num_gradients += num_gradients
            whole = time.perf_counter() - began
            pace.add(method.num_points, drawn - began, num_gradients, whole)
            oversight.on_round(i, history)
            if annealed >= 0 and annealed >= method.num_annealing - 1:
                break
            leaves, so_far = jax.tree.leaves(state), copy.deepcopy(history)
            kept = (best[0], jax.tree.leaves(best[1]))
            after = _AfterRound(
                i + 1, leaves, step_size, buffer, annealed, kept, factors, affine, so_far
            )
            journal.note("rounds", after)
        if history.losses:
            # What the last updates have led to, on fresh draws.
            key_last = jax.random.fold_in(key_rounds, 2**31)
            steps = map_of(flow, method.num_sampling_steps, state.average, density)
            last, _ = ess_and_evidence(draw(target, affine, steps, key_last, method.num_points))
            history.num_gradients += method.num_points
            if last < _ACCIDENT * best[0]:
                state = state.replace(average=best[1])
    except KeyboardInterrupt:
        history.stopped = "interrupted"
    except jax.errors.JaxRuntimeError as error:
        # Out of memory, or a callback of the model that raised. Without a round there is no sampler
        # worth keeping.
        if not history.losses:
            raise
        history.stopped = str(error).splitlines()[0]
    return TrainedSampler(affine, state.average, step_size, flow)


def _record(history: TrainingHistory, draws: Draws) -> None:
    ess_fraction, log_evidence = ess_and_evidence(draws)
    history.ess_fraction.append(ess_fraction)
    history.affinity.append(affinity(draws))
    history.log_evidence.append(log_evidence)
    history.diverged |= log_evidence == -math.inf
