"""What can be compiled while the posterior is explored, with the types and shapes of its calls."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep import compilation
from numpyro_onestep.preconditioner import Affine, Density
from numpyro_onestep.target import Target
from numpyro_onestep.training.draws import draw
from numpyro_onestep.training.methods import Method
from numpyro_onestep.training.moves import (
    initial_step_size,
    log_weight_at,
    move,
    training_settings,
)
from numpyro_onestep.training.updates import begin, improve, map_of


def compile_ahead(target: Target, method: Method, rng_key: jax.Array) -> None:
    """Begins to compile what training and the checks call, for a target of this program.

    Methods with a teacher and stochastic samplers compile when they get there, and so does
    everything where there is one core.
    """
    if not compilation.has_spare_core():
        return
    if method.teacher is not None or method.num_sampling_steps > 1:
        return
    flow, dim, dtype = method.flow(target.dim), target.dim, jnp.result_type(float)
    shapes: Any = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((dim,), (dim, dim))]
    affine = Affine(*shapes)
    density = Density(target, method.preconditioner(affine))
    params = flow.init(rng_key)
    steps = jax.eval_shape(functools.partial(map_of, flow, 1), params, density)
    drawn = (target, density.affine, steps, rng_key, method.num_points)
    draw.ahead(*drawn)
    # Short ones, which would wait for the long ones behind them on any thread.
    begin.ahead(method, params)
    map_of.ahead(flow, 1, params, density)
    step_size = initial_step_size(affine.mean)
    settings = training_settings(step_size, method.num_points, method.num_moves)
    moved = (
        target,
        density.affine,
        draw.result_type(*drawn),
        *settings,
        rng_key,
    )
    move.ahead(*moved)
    state = jax.eval_shape(functools.partial(begin, method), params)
    buffer = (move.result_type(*moved),) * method.num_buffered
    done, factors = np.zeros(2, np.int32), None
    if method.num_outer(dim):
        factors = jax.ShapeDtypeStruct((2, dim, dim), dtype)
    improve.ahead(density, flow, method, state, buffer, None, rng_key, done, factors)
    log_weight_at.ahead(steps, buffer[0].points, buffer[0].log_density)
    # The checks draw in twice as many steps.
    finer = jax.eval_shape(functools.partial(map_of, flow, 2), params, density)
    map_of.ahead(flow, 2, params, density)
    draw.ahead(target, density.affine, finer, rng_key, method.num_points)
