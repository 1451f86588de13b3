r"""Objectives on the volume that steps take up: consistency, and a penalty on the Jacobian.

Volume consistency (arXiv 2512.05251, section 4.2) asks that the log-volume of one step of size `d`
is that of two half steps of a teacher,

    ( v_teacher(x; t, d/2) + v_teacher(x'; t + d/2, d/2) - v_theta(x; t, d) )^2,

with `v` the trace of `J - I` that the published weight adds up, or the exact `log|det J|`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import ControlledFlow, TraceLogDet
from numpyro_onestep.networks import Params
from numpyro_onestep.objectives.paths import PathBatch
from numpyro_onestep.objectives.state_consistency import Intervals


@dataclasses.dataclass(frozen=True)
class VolumeConsistency:
    """Squared difference of log-volumes.

    Attributes:
        intervals: which steps are trained.
        trace: how traces are taken; None for exact log-determinants.
    """

    intervals: Intervals = Intervals(0, 4)
    trace: TraceLogDet | None = TraceLogDet()

    def loss(self, flow: ControlledFlow, params: Params, batch: PathBatch) -> jax.Array:
        """Mean over points, in nats squared."""
        t, d, _ = self.intervals.draw(batch.times, batch.uniform)

        def volume(
            params: Params, x: jax.Array, t: jax.Array, d: jax.Array, probes: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            if self.trace is None:
                step = flow.step(params, t, d, batch.density)
                image, log_det, _ = flows.apply_with_log_det(step, x)
                return image, log_det
            return self.trace.of_step(flow, params, batch.density, x, t, d, probes)

        def error(x: jax.Array, t: jax.Array, d: jax.Array, probe: jax.Array) -> jax.Array:
            exact = self.trace is not None and self.trace.num_probes is None
            probes = jnp.eye(len(x), dtype=x.dtype) if exact else probe[None]
            half = 0.5 * d
            middle, first = volume(batch.teacher, x, t, half, probes)
            _, second = volume(batch.teacher, middle, t + half, half, probes)
            _, whole = volume(params, x, t, d, probes)
            return (jax.lax.stop_gradient(first + second) - whole) ** 2

        return batch.mean(jax.vmap(error)(batch.states(flow, t), t, d, batch.probes))


@dataclasses.dataclass(frozen=True)
class JacobianPenalty:
    """Mean square of the control's Jacobian times a random direction.

    Attributes:
        intervals: which steps are trained.
    """

    intervals: Intervals = Intervals(0, 4)

    def loss(self, flow: ControlledFlow, params: Params, batch: PathBatch) -> jax.Array:
        """Mean over dimensions and points; no unit."""
        t, d, _ = self.intervals.draw(batch.times, batch.uniform)

        def square(x: jax.Array, t: jax.Array, d: jax.Array, probe: jax.Array) -> jax.Array:
            def control(x: jax.Array) -> jax.Array:
                return flow.control(params, x, t, d, batch.density, freeze_score=True)

            return jnp.mean(jax.jvp(control, (x,), (probe,))[1] ** 2)

        return batch.mean(jax.vmap(square)(batch.states(flow, t), t, d, batch.probes))
