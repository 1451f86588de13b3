r"""State-space consistency: one step lands where two half steps of a teacher land.

    || T_theta(z_t; t, d) - T_teacher(T_teacher(z_t; t, d/2); t + d/2, d/2) ||^2 / kappa(t, d)^2

(arXiv 2512.05251, section 4.1), with an exponential moving average as teacher, `d = 2^-k` and `t` a
multiple of `d`. Where nothing else learns the half of the shortest step, the teacher takes it along
its velocity at `d = 0`, which target-score matching learns. The whole interval, `d = 1`, may be
left to an objective that trains the one-step map on the posterior itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_onestep import flow as flows
from numpyro_onestep.networks import Params


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Steps of size `2^-first` to `2^-last`, starting at multiples of their size.

    Attributes:
        first: 0 includes the whole interval.
        last: the shortest steps, `2^-last`.
    """

    first: int = 1
    last: int = 4

    def __post_init__(self) -> None:
        """Refuses an empty range."""
        if not 0 <= self.first <= self.last:
            raise ValueError(f"expected 0 <= first <= last; got {self.first}, {self.last}")

    def draw(self, times: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Starts, sizes and levels `(n,)` from uniform numbers in (0, 1), `(n,)` each."""
        num_levels = self.last - self.first + 1
        level = self.first + jnp.floor(uniform * num_levels).astype(int)
        d = 0.5 ** level.astype(times.dtype)
        return jnp.floor(times / d) * d, d, level


@dataclasses.dataclass(frozen=True)
class StateConsistency:
    """Squared distance of end points.

    Attributes:
        intervals: which steps are trained.
        by_velocity: whether the teacher takes the halves of the shortest steps along its velocity.
        relative: whether the distance counts per length of the step, as a velocity; half its square
            is summed over dimensions then, as in the other losses on velocities. Otherwise the
            published form: the square's mean over dimensions.
    """

    intervals: Intervals = Intervals()
    by_velocity: bool = True
    relative: bool = True

    def loss(self, flow: Any, params: Params, batch: Any) -> jax.Array:
        """Mean over points; the batch is one that knows its `states`."""
        t, d, level = self.intervals.draw(batch.times, batch.uniform)
        z_t = batch.states(flow, t)

        def error(x: jax.Array, t: jax.Array, d: jax.Array, level: jax.Array) -> jax.Array:
            half = 0.5 * d

            def teacher(x: jax.Array, t: jax.Array) -> jax.Array:
                learned = flows.apply(flow.step(batch.teacher, t, half, batch.density), x)
                if not self.by_velocity:
                    return learned
                length = flow.schedule.kappa(t, half)
                euler = x + length * flow.velocity(batch.teacher, x, t, batch.density)
                return jnp.where(level == self.intervals.last, euler, learned)

            wanted = jax.lax.stop_gradient(teacher(teacher(x, t), t + half))
            landed = flows.apply(flow.step(params, t, d, batch.density), x)
            if not self.relative:
                return jnp.mean((landed - wanted) ** 2)
            return 0.5 * jnp.sum((landed - wanted) ** 2) / flow.schedule.kappa(t, d) ** 2

        return batch.mean(jax.vmap(error)(z_t, t, d, level))
