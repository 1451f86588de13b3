r"""State-space consistency: one step lands where two half steps of a teacher land.

    || T_theta(z_t; t, d) - T_teacher(T_teacher(z_t; t, d/2); t + d/2, d/2) ||^2 / kappa(t, d)^2

(arXiv 2512.05251, section 4.1), with an exponential moving average as teacher, `d = 2^-k` and `t` a
multiple of `d`. Below the shortest learned step the teacher takes the step along its velocity at
`d = 0`, which target-score matching learns. The whole interval, `d = 1`, is left to the objective
that trains the one-step map on the posterior itself.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import FlowMap
from numpyro_onestep.networks import Params
from numpyro_onestep.objectives.base import TrainingBatch, mean_over_near, noised


@dataclasses.dataclass(frozen=True)
class StateConsistency:
    """Squared distance of end points, as a velocity.

    Attributes:
        num_levels: step sizes 1/2 .. 2^-num_levels are trained.
    """

    num_levels: int = 4

    def loss(self, flow: FlowMap, params: Params, batch: TrainingBatch) -> jax.Array:
        """Half the squared error of the mean velocity: sum over dimensions, mean over points."""
        level = 1 + jnp.floor(batch.uniform * self.num_levels).astype(int)
        d = 0.5 ** level.astype(batch.times.dtype)
        t = jnp.floor(batch.times / d) * d
        z_t = noised(flow, batch, t)

        def error(x: jax.Array, t: jax.Array, d: jax.Array, level: jax.Array) -> jax.Array:
            half = 0.5 * d

            def teacher(x: jax.Array, t: jax.Array) -> jax.Array:
                length = flow.schedule.kappa(t, half)
                euler = x + length * flow.velocity(batch.teacher, x, t)
                learned = flows.apply(flow.step(batch.teacher, t, half), x)
                return jnp.where(level == self.num_levels, euler, learned)

            wanted = jax.lax.stop_gradient(teacher(teacher(x, t), t + half))
            landed = flows.apply(flow.step(params, t, d), x)
            return jnp.sum((landed - wanted) ** 2) / flow.schedule.kappa(t, d) ** 2

        return 0.5 * mean_over_near(jax.vmap(error)(z_t, t, d, level), batch)
