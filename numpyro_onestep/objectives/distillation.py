r"""Distillation along the probability-flow ODE of a multi-step sampler.

    || T_theta(x_t; t, s - t) - T_average(x_{t+h}; t + h, s - t - h) ||^2

(arXiv 2502.07579, after consistency models): `x_t` is a point of the teacher's ODE, simulated no
further than `x_{t+h}`, one step of it on. At `s = t + h` the second map is the identity, so the
teacher's own step is learned there, and from there on whole stretches of its trajectories are.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import ControlledFlow
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density


class DistillationBatch(NamedTuple):
    """What one step of the optimiser sees when a method distils a teacher.

    Attributes:
        points: of the teacher's trajectories, `(n, dim)`.
        ahead: one step of the teacher on, `(n, dim)`.
        times: of the points, `(n,)`.
        size: of the teacher's steps, `()`.
        ends: where the student's step ends, `(n,)`; at least one step on.
        average: moving average of the student's parameters.
        density: the target.
        update: optimiser steps before this one, `()`.
    """

    points: jax.Array
    ahead: jax.Array
    times: jax.Array
    size: jax.Array
    ends: jax.Array
    average: Params
    density: Density
    update: jax.Array


@dataclasses.dataclass(frozen=True)
class ConsistencyDistillation:
    """Squared distance of end points, summed over dimensions."""

    def loss(self, flow: ControlledFlow, params: Params, batch: DistillationBatch) -> jax.Array:
        """Mean over points, in units of the preconditioner's coordinates squared."""

        def error(x: jax.Array, ahead: jax.Array, t: jax.Array, end: jax.Array) -> jax.Array:
            landed = flows.apply(flow.step(params, t, end - t, batch.density), x)
            after = t + batch.size
            rest = flow.step(batch.average, after, jnp.maximum(end - after, 0.0), batch.density)
            wanted = jax.lax.stop_gradient(flows.apply(rest, ahead))
            return jnp.sum((landed - wanted) ** 2)

        errors = jax.vmap(error)(batch.points, batch.ahead, batch.times, batch.ends)
        usable = jnp.isfinite(errors)
        return jnp.where(usable, errors, 0.0).sum() / jnp.maximum(usable.sum(), 1)
