"""Consistency-distilled diffusion samplers (CDDS)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_onestep.flow import ControlledFlow
from numpyro_onestep.networks import Params
from numpyro_onestep.objectives import ConsistencyDistillation, DistillationBatch, Objective
from numpyro_onestep.preconditioner import Density
from numpyro_onestep.schedules import EulerCosineSchedule, Schedule
from numpyro_onestep.training.methods.base import Method
from numpyro_onestep.training.methods.diffusion import DiffusionMethod, published_settings
from numpyro_onestep.training.methods.multi_step import DIS
from numpyro_onestep.training.moves import MovedPoints


@dataclasses.dataclass(frozen=True, kw_only=True)
class CDDS(DiffusionMethod):
    """A multi-step diffusion sampler distilled into one step (arXiv 2502.07579).

    The teacher is trained first, on the same target; its probability-flow ODE is then followed
    from the prior to a random time, no further, and the student learns where it would go on to.
    The student has a network of its own and takes steps of any size.

    Attributes:
        teacher: the method that trains the teacher; one of the multi-step samplers.
    """

    teacher: Method = DIS()
    objectives: tuple[tuple[float, Objective], ...] = ((1.0, ConsistencyDistillation()),)
    schedule: Schedule = EulerCosineSchedule()
    batch_size: int = 128
    max_rounds: int = 8

    def __post_init__(self) -> None:
        """Refuses a teacher without a control to follow."""
        super().__post_init__()
        if not isinstance(self.teacher, DiffusionMethod) or self.teacher.kernel.starts_at_zero:
            raise ValueError(
                f"expected a teacher with a probability flow from a normal; got {self.teacher!r}"
            )

    @property
    def gradients_per_update(self) -> int:
        """The teacher's path, one step of it, and two of the student."""
        teacher: Any = self.teacher
        per_path = teacher.num_path_steps + 1 if teacher.langevin else 0
        return self.batch_size * (per_path + (2 if self.langevin else 0))

    def batch(
        self,
        density: Density,
        flow: Any,
        params: Params,
        average: Params,
        points: MovedPoints,
        teacher: Any,
        update: jax.Array,
        rng_key: jax.Array,
        outer_factors: jax.Array | None = None,
    ) -> DistillationBatch:
        """Points of incomplete trajectories of the teacher."""
        key_start, key_times = jax.random.split(rng_key)
        num, dim, dtype = self.batch_size, flow.dim, density.affine.mean.dtype
        num_steps = self.teacher.num_sampling_steps
        size = jnp.asarray(1.0 / num_steps, dtype)
        start = self.spread * jax.random.normal(key_start, (num, dim), dtype)
        stop, end, whole = jax.random.uniform(key_times, (3, num), dtype)
        stop = jnp.floor(stop * num_steps).astype(int)
        ahead_of_stop = (num_steps - stop).astype(dtype)
        end = stop + 1 + jnp.floor(end * ahead_of_stop).astype(int)
        # Half of the student's steps go all the way: one of them is the one-step sampler's.
        end = jnp.where(whole < 0.5, num_steps, jnp.minimum(end, num_steps))

        def follow(x: jax.Array, stop: jax.Array) -> tuple[jax.Array, jax.Array]:
            def body(i: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple:
                _, x = pair
                ode: ControlledFlow = teacher.flow
                ahead = ode.step(teacher.params, i * size, size, density).one(
                    x, i * size, size, freeze_score=True
                )
                return x, ahead

            return jax.lax.fori_loop(0, stop + 1, body, (x, x))

        at, ahead = jax.vmap(follow)(start, stop)
        return DistillationBatch(
            points=jax.lax.stop_gradient(at),
            ahead=jax.lax.stop_gradient(ahead),
            times=stop * size,
            size=size,
            ends=end * size,
            average=average,
            density=density,
            update=update,
        )

    @classmethod
    def published(cls, *, prior_scale: float = 1.0, learning_rate: float = 1e-3) -> CDDS:
        """The path and the networks of the paper: a budget for a GPU.

        Where the paper gives no number, that of `OSDS.published` stands.
        """
        shared = published_settings(prior_scale, learning_rate)
        return cls(teacher=DIS(max_rounds=2000, **shared), max_rounds=3000, **shared)
