"""The optimiser: its state, and one round of its steps as one program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from numpyro_onestep.compilation import compiled
from numpyro_onestep.flow import Flow
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density
from numpyro_onestep.training.methods import Method
from numpyro_onestep.training.moves import MovedPoints

_LAST_RATE = 1e-3


@struct.dataclass
class State:
    """Parameters, their moving average, and the optimiser's own state."""

    params: Params
    average: Params
    optimiser: optax.OptState


@compiled(many_loops=True, static_argnames="method")
def begin(method: Method, params: Params) -> State:
    """What training starts from."""
    return State(params, params, method.optimiser().init(params))


@compiled(many_loops=True, static_argnames=("flow", "num_steps"))
def map_of(flow: Flow, num_steps: int, params: Params, density: Density) -> Any:
    """The map in so many steps."""
    return flow.steps(params, num_steps, density)


@compiled(many_loops=True, static_argnames=("flow", "method"))
def improve(
    density: Density,
    flow: Flow,
    method: Method,
    state: State,
    buffer: tuple[MovedPoints, ...],
    teacher: Any,
    rng_key: jax.Array,
    done: jax.Array | np.ndarray,
    outer_factors: jax.Array | None,
) -> tuple[State, jax.Array]:
    """One round of optimiser steps.

    `done` holds the optimiser steps and the rounds of annealing before it; the latter are negative
    before they begin. `outer_factors` is what `Method.batch` takes.
    """
    num_done, annealed = done
    points = jax.tree.map(
        lambda *leaves: jnp.concatenate([jnp.atleast_1d(leaf) for leaf in leaves]), *buffer
    )
    optimiser = method.optimiser()
    falling: optax.Schedule = optax.constant_schedule(1.0)
    if method.num_annealing:
        falling = optax.cosine_decay_schedule(
            1.0, method.num_annealing * method.num_updates, _LAST_RATE
        )

    def update(state: State, i: jax.Array) -> tuple[State, jax.Array]:
        key = jax.random.fold_in(rng_key, i)
        batch = method.batch(
            density,
            flow,
            state.params,
            state.average,
            points,
            teacher,
            num_done + i,
            key,
            outer_factors,
        )

        def loss(params: Params) -> jax.Array:
            terms = [w * o.loss(flow, params, batch) for w, o in method.objectives]
            return jnp.stack(terms).sum()

        gradient = jax.grad(loss)(state.params)
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
        rate = method.learning_rate * falling(annealed * method.num_updates + i)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        average = optax.incremental_update(params, state.average, 1.0 - method.ema)
        return State(params, average, optimiser_state), optax.tree.norm(gradient)

    return jax.lax.scan(update, state, jnp.arange(method.num_updates))
