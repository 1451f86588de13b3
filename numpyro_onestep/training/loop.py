r"""The training loop.

A round (1) draws from the sampler with exact weights, (2) resamples and moves the draws, (3)
descends the objectives on fresh draws and on the moved points of the last rounds. The share of
effective draws of every round is that of fresh draws; when it no longer grows, the learning rate
falls over a few last rounds.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import FlowMap
from numpyro_onestep.networks import GatedResidualNetwork, Params
from numpyro_onestep.objectives import TrainingBatch
from numpyro_onestep.preconditioner import NUM_FIT_GRADIENTS, Affine, fit_gaussian
from numpyro_onestep.target import Target
from numpyro_onestep.training.draws import Draws, draw, value_and_score
from numpyro_onestep.training.moves import (
    MovedPoints,
    adapted_step_size,
    initial_step_size,
    move,
)
from numpyro_onestep.training.settings import TrainingSettings

# Newton steps per block for the preimages of a batch: points that they leave too far off are left
# out.
_NEWTON_STEPS = 2
_MAX_GRADIENT_NORM = 5.0
_LAST_RATE = 1e-3
# A Gaussian fit with a standard deviation beyond this has found no posterior.
_MAX_SCALE = 1e10
# Last steps of a Gaussian fit over which its noisy bound is averaged.
_ELBO_STEPS = 50


@struct.dataclass
class _State:
    params: Params
    average: Params
    optimiser: optax.OptState


@dataclasses.dataclass
class TrainingHistory:
    """What happened, by round and by optimiser step.

    Attributes:
        ess_fraction: share of effective draws before each round.
        log_evidence: estimate from the draws before each round, in nats.
        acceptance: share of accepted moves per round.
        losses: size of the update's gradient per optimiser step: the surrogates have no values.
        gaussian_elbo: evidence lower bound per step of the Gaussian fit, in nats.
        num_gradients: gradients of the target's log-density, everything included.
        stopped: "" or why training ended early ("interrupted", "time limit").
        diverged: whether the fit or its gradients ceased to be finite.
        seconds: wall time of training, compilation included.
    """

    ess_fraction: list[float] = dataclasses.field(default_factory=list)
    log_evidence: list[float] = dataclasses.field(default_factory=list)
    acceptance: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)
    gaussian_elbo: list[float] = dataclasses.field(default_factory=list)
    num_gradients: int = 0
    stopped: str = ""
    diverged: bool = False
    seconds: float = 0.0


@struct.dataclass
class TrainedSampler:
    """A trained sampler: everything that drawing needs.

    Attributes:
        affine: the preconditioner.
        params: parameters of the flow.
        step_size: of MALA, adapted.
        rivals: Gaussian fits from other starts, which training did not use: witnesses.
        flow: the map; static.
    """

    affine: Affine
    params: Params
    step_size: jax.Array
    rivals: tuple[Affine, ...]
    flow: FlowMap = struct.field(pytree_node=False)


def train(
    target: Target,
    rng_key: jax.Array,
    settings: TrainingSettings,
    *,
    time_limit: float | None = None,
    on_round: Callable[[int, TrainingHistory], None] = lambda _round, _history: None,
    warm: TrainedSampler | None = None,
) -> tuple[TrainedSampler, TrainingHistory]:
    """Trains a sampler for the target.

    Ctrl-C and the time limit (seconds, checked between rounds) end training with what there is.
    A `warm` sampler, trained for other data, gives one more starting point, the parameters and the
    step size; the other starting points are as many as without it and bear the same witness.
    """
    began = time.perf_counter()
    history = TrainingHistory()
    # Folding compiles less than unpacking a split, here and in every round.
    key_start, key_fit, key_init, key_rounds = (jax.random.fold_in(rng_key, i) for i in range(4))
    starts = list(target.initial_points(key_start, settings.num_starts))
    if warm is not None:
        starts.append(warm.affine.mean)
    fits = [
        fit_gaussian(target, start, jax.random.fold_in(key_fit, i))
        for i, start in enumerate(starts)
    ]
    elbos = [float(np.mean(np.asarray(elbo)[-_ELBO_STEPS:])) for _, elbo in fits]
    best = int(np.argmax(np.nan_to_num(elbos, nan=-np.inf)))
    affine, elbo = fits[best]
    rivals = tuple(fit for i, (fit, _) in enumerate(fits) if i != best)
    history.gaussian_elbo = np.asarray(elbo, float).tolist()
    history.num_gradients += NUM_FIT_GRADIENTS * len(fits)
    # Along a direction in which the density has no end, the scale doubles with every few steps.
    history.diverged = not bool(jnp.abs(affine.factor).max() < _MAX_SCALE)

    flow = FlowMap(GatedResidualNetwork(target.dim, settings.width, settings.num_blocks))
    params = _init(flow, key_init) if warm is None else warm.params
    state = _State(params, params, _optimiser(settings).init(params))
    step_size = initial_step_size(affine.mean) if warm is None else warm.step_size
    max_weight = jnp.sqrt(jnp.asarray(settings.num_points, affine.mean.dtype))
    buffer: list[MovedPoints] = []
    # Rounds of annealing done so far; negative before the first.
    annealed = -1
    try:
        for i in range(settings.max_rounds + settings.num_annealing):
            key_draw, key_move, key_improve = (
                jax.random.fold_in(key_rounds, 3 * i + j) for j in range(3)
            )
            blocks = _blocks(flow, state.average)
            draws = draw(target, affine, blocks, key_draw, settings.num_points)
            _record(history, draws)
            if annealed >= 0 or i == settings.max_rounds or _is_enough(history, settings):
                annealed += 1
            limit = time_limit is not None and time.perf_counter() - began > time_limit
            if limit:
                history.stopped = "time limit"
            if history.diverged or limit:
                break
            moved = move(
                target,
                affine,
                draws,
                step_size,
                max_weight,
                jnp.asarray(settings.num_moves),
                key_move,
            )
            step_size = adapted_step_size(step_size, moved.acceptance)
            # The first round stands in for those that are still missing: one shape, one program.
            buffer = (buffer or [moved] * (settings.num_buffered - 1)) + [moved]
            buffer = buffer[-settings.num_buffered :]
            points = jax.tree.map(
                lambda *leaves: jnp.concatenate([jnp.atleast_1d(leaf) for leaf in leaves]), *buffer
            )
            state, losses = _improve(
                target, affine, flow, settings, state, points, key_improve, jnp.asarray(annealed)
            )
            history.acceptance.append(float(moved.acceptance))
            history.losses.extend(np.asarray(losses, float).tolist())
            history.num_gradients += settings.num_points * (1 + settings.num_moves)
            history.num_gradients += settings.num_updates * settings.batch_size
            on_round(i, history)
            if annealed == settings.num_annealing - 1:
                break
    except KeyboardInterrupt:
        history.stopped = "interrupted"
    history.seconds = time.perf_counter() - began
    return TrainedSampler(affine, state.average, step_size, rivals, flow), history


def _record(history: TrainingHistory, draws: Draws) -> None:
    log_weight = np.asarray(draws.log_weight, float)
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    top = log_weight.max()
    if not np.isfinite(top):
        history.diverged = True
        history.ess_fraction.append(0.0)
        history.log_evidence.append(-np.inf)
        return
    weight = np.exp(log_weight - top) * np.asarray(draws.sign, float)
    history.ess_fraction.append(
        max(weight.sum(), 0.0) ** 2 / max((weight**2).sum(), 1e-300) / len(weight)
    )
    history.log_evidence.append(float(top + np.log(max(weight.mean(), 1e-300))))


def _is_enough(history: TrainingHistory, settings: TrainingSettings) -> bool:
    """Whether the target is reached in two rounds running, or `patience` rounds brought no gain."""
    ess_fraction = history.ess_fraction
    if len(ess_fraction) > 1 and min(ess_fraction[-2:]) >= settings.target_ess:
        return True
    earlier, recent = ess_fraction[: -settings.patience], ess_fraction[-settings.patience :]
    return len(earlier) > 1 and max(recent) < max(earlier) + 0.01


def _optimiser(settings: TrainingSettings) -> optax.GradientTransformation:
    steps = optax.chain(
        optax.clip_by_global_norm(_MAX_GRADIENT_NORM),
        optax.scale_by_adam(b2=0.99),
    )
    # A batch with an infinite gradient is passed over; the sampler is judged by its draws anyway.
    return optax.apply_if_finite(steps, max_consecutive_errors=settings.num_updates)


@functools.partial(jax.jit, static_argnames="flow")
def _init(flow: FlowMap, rng_key: jax.Array) -> Params:
    return flow.network.init(rng_key)


@functools.partial(jax.jit, static_argnames="flow")
def _blocks(flow: FlowMap, params: Params) -> flows.Blocks:
    return flow.steps(params)


@functools.partial(jax.jit, static_argnames=("flow", "settings"))
def _improve(
    target: Target,
    affine: Affine,
    flow: FlowMap,
    settings: TrainingSettings,
    state: _State,
    points: MovedPoints,
    rng_key: jax.Array,
    annealed: jax.Array,
) -> tuple[_State, jax.Array]:
    """One round of optimiser steps, after so many rounds of annealing (negative before them)."""
    optimiser = _optimiser(settings)
    falling = optax.cosine_decay_schedule(
        1.0, settings.num_annealing * settings.num_updates, _LAST_RATE
    )

    def update(state: _State, i: jax.Array) -> tuple[_State, jax.Array]:
        key = jax.random.fold_in(rng_key, i)
        batch = _batch(target, affine, flow, settings, state, points, key)

        def loss(params: Params) -> jax.Array:
            terms = [w * o.loss(flow, params, batch) for w, o in settings.objectives]
            return jnp.stack(terms).sum()

        gradient = jax.grad(loss)(state.params)
        updates, optimiser_state = optimiser.update(gradient, state.optimiser)
        rate = settings.learning_rate * falling(annealed * settings.num_updates + i)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        average = optax.incremental_update(params, state.average, 1.0 - settings.ema)
        return _State(params, average, optimiser_state), optax.tree.norm(gradient)

    return jax.lax.scan(update, state, jnp.arange(settings.num_updates))


def _batch(
    target: Target,
    affine: Affine,
    flow: FlowMap,
    settings: TrainingSettings,
    state: _State,
    points: MovedPoints,
    rng_key: jax.Array,
) -> TrainingBatch:
    # Two calls for all random numbers of the step: each call costs half a second to compile.
    key_normal, key_uniform = jax.random.split(rng_key)
    num, dim, dtype = settings.batch_size, target.dim, affine.mean.dtype
    base, noise = jax.random.normal(key_normal, (2, num, dim), dtype)
    which, jitter, uniform = jax.random.uniform(key_uniform, (3, num), dtype)
    blocks = flow.steps(state.params)
    image = jax.vmap(flows.apply, in_axes=(None, 0))(blocks, base)
    _, image_score = value_and_score(target, affine, image)
    chosen = (which * len(points.points)).astype(int)

    chosen_points = points.points[chosen]
    preimages, _ = jax.vmap(lambda x: flows.invert(blocks, x, _NEWTON_STEPS))(chosen_points)
    return TrainingBatch(
        base=base,
        image=image,
        image_score=image_score,
        points=chosen_points,
        points_score=points.score[chosen],
        preimages=preimages,
        times=(jnp.arange(num) + jitter) / num,
        noise=noise,
        uniform=uniform,
        teacher=state.average,
    )
