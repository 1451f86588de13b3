r"""A flow whose steps follow a control network with a Langevin term.

    T(z; t, d) = z + kappa(t, d) F(z; t, d)

is one step of the probability-flow ODE of a variance-preserving diffusion, `F` standing for
`z + score_t(z)`. With `u` a control network (see `networks.control`),

    F = u,                g = t (grad log p + z)                          (residual)
    F = z + u / sqrt(b),  g = sqrt(b) (t grad log p - (1 - t) z)          (not residual)

where `b = beta(t)`. The second is the published form (arXiv 2512.05251): its step is
`z + (sqrt(b) u + b z) d / 2`. In both, the untrained control moves nothing where the target is the
base. The first is also exact for a Gaussian preconditioned to the base whatever `c(t, d)` is, and
its clip acts on what is not Gaussian only.

Before its first step a flow may stretch the base to heavier tails (see `tails`), with its volume:
any base with a known density serves.

Of the second form a step is `(1 + kappa) z` plus a bounded displacement, of the first `z` plus one:
the signed weights are exact. The determinant is that of the whole map by forward-mode Jacobians,
the gradient of the target differentiated along with everything else.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from numpyro_onestep import tails
from numpyro_onestep.flow.base import (
    NEWTON_STEPS,
    Solve,
    apply,
    apply_with_log_det,
    base_dim,
    damped_newton,
    identity,
    invert,
)
from numpyro_onestep.flow.kernels import ExponentialIntegrator, Kernel
from numpyro_onestep.networks import ControlNetwork, Params
from numpyro_onestep.preconditioner import Density
from numpyro_onestep.schedules import CosineSchedule, EulerCosineSchedule, Schedule


@dataclasses.dataclass(frozen=True)
class ControlledFlow:
    """A control network together with its schedule.

    Attributes:
        network: the control.
        schedule: gives the length of a step; one with a `beta` unless `residual`.
        residual: which of the two forms of the module's docstring.
        kernel: the stochastic process of the same control, which path objectives simulate.
        tail: weight of the base's tails, `k = tail / sqrt(dim)`; for draws alone, not in training.
    """

    network: ControlNetwork
    schedule: Schedule = CosineSchedule()
    residual: bool = True
    kernel: Kernel = ExponentialIntegrator()
    tail: float = 0.0

    def __post_init__(self) -> None:
        """Refuses a schedule that lacks what the published form needs."""
        if not self.residual and not isinstance(self.schedule, EulerCosineSchedule):
            raise ValueError(
                f"expected a schedule with a rate of the noise, beta; got {self.schedule!r}"
            )

    @property
    def dim(self) -> int:
        """Length of a point."""
        return self.network.dim

    def init(self, rng_key: jax.Array) -> Params:
        """Parameters with which only the Langevin term moves points."""
        return self.network.init(rng_key)

    def force(
        self,
        params: Params,
        x: jax.Array,
        t: jax.Array,
        d: jax.Array,
        density: Density | None,
        *,
        freeze_score: bool = False,
    ) -> jax.Array:
        """`F(x; t, d)`, `(dim,)`; a frozen score is not differentiated."""
        control = self.control(params, x, t, d, density, freeze_score=freeze_score)
        return control if self.residual else x + control / self._root(t)

    def control(
        self,
        params: Params,
        x: jax.Array,
        t: jax.Array,
        d: jax.Array,
        density: Density | None,
        *,
        freeze_score: bool = False,
    ) -> jax.Array:
        """`u(x; t, d)`, `(dim,)`; a frozen score is not differentiated."""
        if not self.network.langevin:
            return self.network.control(params, x, t, d)
        x_score = jax.lax.stop_gradient(x) if freeze_score else x
        score = _score(density, x_score)
        if self.residual:
            gradient = t * (score + x_score)
        else:
            gradient = self._root(t) * (t * score - (1.0 - t) * x_score)
        return self.network.control(params, x, t, d, gradient)

    def _root(self, t: jax.Array) -> jax.Array:
        assert isinstance(self.schedule, EulerCosineSchedule)
        return jnp.sqrt(self.schedule.beta(t))

    def step(
        self, params: Params, t: jax.Array, d: jax.Array, density: Density | None
    ) -> ControlledSteps:
        """The map `T(.; t, d)` for scalars `t`, `d`; without the stretch of the base."""
        return ControlledSteps(params, t[None], d[None], jnp.zeros(()), density, self)

    def steps(self, params: Params, num_steps: int = 1, density: Density | None = None) -> Any:
        """The whole map in `num_steps` equal steps."""
        sizes = jnp.full(num_steps, 1.0 / num_steps)
        times = jnp.arange(num_steps) / num_steps
        tail = jnp.asarray(self.tail / self.dim**0.5)
        return ControlledSteps(params, times, sizes, tail, density, self)

    def velocity(
        self, params: Params, x: jax.Array, t: jax.Array, density: Density | None
    ) -> jax.Array:
        """`F(x; t, 0)`."""
        return self.force(params, x, t, jnp.zeros_like(t), density)


def _score(density: Density | None, x: jax.Array) -> jax.Array:
    if density is None:
        raise ValueError("expected a density: the control follows its gradient; got None")
    return density.score(x)


@struct.dataclass
class ControlledSteps:
    """Steps of a controlled flow, in order of application.

    Attributes:
        params: of the network.
        times: where each step starts, `(num_steps,)`.
        sizes: of the steps, `(num_steps,)`.
        tail: `k` of the stretch before the first step, `()`.
        density: the target, whose gradient the control follows.
        flow: static.
    """

    params: Params
    times: jax.Array
    sizes: jax.Array
    tail: jax.Array
    density: Density | None
    flow: ControlledFlow = struct.field(pytree_node=False)

    def one(self, x: jax.Array, t: jax.Array, d: jax.Array, *, freeze_score: bool) -> jax.Array:
        """A single step from `x: (dim,)`."""
        force = self.flow.force(self.params, x, t, d, self.density, freeze_score=freeze_score)
        return x + self.flow.schedule.kappa(t, d) * force


@struct.dataclass
class Identity:
    """The map that moves nothing.

    Attributes:
        like: an array `(dim,)`.
    """

    like: jax.Array


@base_dim.register
def _(steps: Identity) -> int:
    return len(steps.like)


@identity.register
def _(steps: Identity) -> Identity:
    return steps


@apply.register
def _(steps: Identity, z: jax.Array) -> jax.Array:
    return z


@apply_with_log_det.register
def _(steps: Identity, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return z, jnp.zeros((), z.dtype), jnp.ones((), z.dtype)


@invert.register
def _(steps: Identity, x: jax.Array, num_newton: int = 0) -> tuple[jax.Array, jax.Array]:
    return x, jnp.zeros((), x.dtype)


@base_dim.register
def _(steps: ControlledSteps) -> int:
    return steps.flow.dim


@identity.register
def _(steps: ControlledSteps) -> Identity:
    return Identity(jnp.zeros(steps.flow.dim))


@apply.register
def _(steps: ControlledSteps, z: jax.Array) -> jax.Array:
    def body(x: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return steps.one(x, *step, freeze_score=False), None

    first = tails.stretch(steps.tail, z)
    return jax.lax.scan(body, first, (steps.times, steps.sizes))[0]


def _with_jacobian(
    steps: ControlledSteps, x: jax.Array, t: jax.Array, d: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = steps.one(x, t, d, freeze_score=False)
        return y, y

    jacobian, y = jax.jacfwd(both, has_aux=True)(x)
    return y, jacobian


@apply_with_log_det.register
def _(steps: ControlledSteps, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    def body(carry: tuple, step: tuple[jax.Array, jax.Array]) -> tuple[tuple, None]:
        x, total, sign = carry
        y, jacobian = _with_jacobian(steps, x, *step)
        step_sign, log_abs = jnp.linalg.slogdet(jacobian)
        return (y, total + log_abs, sign * step_sign), None

    slope = tails.log_slope(steps.tail, z).sum()
    first: Any = (tails.stretch(steps.tail, z), slope, jnp.ones_like(slope))
    (x, total, sign), _ = jax.lax.scan(body, first, (steps.times, steps.sizes))
    return x, total, sign


@invert.register
def _(
    steps: ControlledSteps, x: jax.Array, num_newton: int = NEWTON_STEPS
) -> tuple[jax.Array, jax.Array]:
    def undo(y: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        def tangent(x: jax.Array) -> tuple[jax.Array, Solve]:
            image, jacobian = _with_jacobian(steps, x, *step)
            return image, lambda miss: jnp.linalg.solve(jacobian, miss)

        def image(x: jax.Array) -> jax.Array:
            return steps.one(x, *step, freeze_score=False)

        return damped_newton(image, tangent, y, num_newton), None

    first, _ = jax.lax.scan(undo, x, (steps.times, steps.sizes), reverse=True)
    z = tails.shrink(steps.tail, first)
    return z, jnp.linalg.norm(apply(steps, z) - x)
