r"""Objectives on the volume that steps take up: consistency, and a penalty on the Jacobian.

Volume consistency (arXiv 2512.05251, section 4.2) asks that the log-volume of one step of size `d`
is that of two half steps of a teacher,

    ( v_teacher(x; t, d/2) + v_teacher(x'; t + d/2, d/2) - v_theta(x; t, d) )^2,

with `v` the trace of `J - I` that the published weight adds up, or the exact `log|det J|`.

With one Hutchinson probe `r`, as published, the square of the probed difference has the expectation
`tr(A)^2 + 2 |offdiag sym A|^2`, `A` being the difference of the Jacobians: what is held together is
the Jacobians' entries more than the volume, and as sums where those of consistent steps are
products. Several probes enter by the products of different ones, whose expectation is `tr(A)^2`.
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
        trace: how traces are taken, with as many probes as the batch has paths at the most; exactly
            where there are as many as dimensions; None for exact log-determinants.
    """

    intervals: Intervals = Intervals(0, 4)
    trace: TraceLogDet | None = TraceLogDet()

    def loss(self, flow: ControlledFlow, params: Params, batch: PathBatch) -> jax.Array:
        """Mean over points, in nats squared."""
        t, d, _ = self.intervals.draw(batch.times, batch.uniform)
        num, dim = batch.probes.shape
        num_probes = 1
        if self.trace is not None:
            num_probes = dim if self.trace.num_probes is None else self.trace.num_probes
        exact = self.trace is not None and num_probes >= dim
        if exact:
            probes = jnp.broadcast_to(jnp.eye(dim, dtype=batch.probes.dtype), (num, dim, dim))
        else:
            # Those of other paths serve as further ones.
            num_probes = min(num_probes, num)
            probes = jnp.stack([jnp.roll(batch.probes, i, axis=0) for i in range(num_probes)], 1)

        def volume(
            params: Params, x: jax.Array, t: jax.Array, d: jax.Array, probe: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            if self.trace is None:
                step = flow.step(params, t, d, batch.density)
                image, log_det, _ = flows.apply_with_log_det(step, x)
                return image, log_det
            return self.trace.of_step(flow, params, batch.density, x, t, d, probe[None])

        def difference(x: jax.Array, t: jax.Array, d: jax.Array, probe: jax.Array) -> jax.Array:
            half = 0.5 * d
            middle, first = volume(batch.teacher, x, t, half, probe)
            _, second = volume(batch.teacher, middle, t + half, half, probe)
            _, whole = volume(params, x, t, d, probe)
            return jax.lax.stop_gradient(first + second) - whole

        def error(x: jax.Array, t: jax.Array, d: jax.Array, probes: jax.Array) -> jax.Array:
            found = jax.vmap(difference, (None, None, None, 0))(x, t, d, probes)
            square = found.sum() ** 2
            if exact or num_probes == 1:
                return square
            return (square - (found**2).sum()) / (num_probes * (num_probes - 1))

        return batch.mean(jax.vmap(error)(batch.states(flow, t), t, d, probes))


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
