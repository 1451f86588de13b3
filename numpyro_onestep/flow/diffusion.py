r"""Multi-step diffusion samplers: paths of the stochastic process that a control steers.

    x_0 ~ N(0, I),   x_{k+1} ~ N(m_k(x_k), s_k^2),
    log w = log gamma(x_K) - log N(x_0; 0, I) + sum_k [ log N(x_k; b_k x_{k+1}, c_k^2)
                                                        - log N(x_{k+1}; m_k(x_k), s_k^2) ]

the ratio of the noising path's density, started from the target, to the sampler's. `E[w] = Z` for
any control (see Richter and Berner, arXiv 2307.01198).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from numpyro_onestep.flow.base import (
    NEWTON_STEPS,
    apply,
    apply_with_log_det,
    base_dim,
    identity,
    invert,
    jacobian_size,
)
from numpyro_onestep.flow.controlled import ControlledFlow, Identity
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density


def grid(num_steps: int) -> tuple[jax.Array, jax.Array]:
    """Starts `(num_steps,)` and sizes `(num_steps,)` of equal steps."""
    return jnp.arange(num_steps) / num_steps, jnp.full(num_steps, 1.0 / num_steps)


def simulate(
    flow: ControlledFlow,
    params: Params,
    density: Density | None,
    start: jax.Array,
    noise: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """A path of the process, with what stands in the place of a determinant.

    The gradient that the control follows is held constant: both results can be differentiated in
    `params` without second derivatives of the target.

    Args:
        flow: the control and its kernels.
        params: of its network.
        density: the target.
        start: `(dim,)`; zero for a process that starts there.
        noise: standard normal, `(num_steps, dim)`.

    Returns:
        Points `(num_steps + 1, dim)`, the first of them `start`, and `v` with
        `log w = log gamma(x_K) + v - log N(start, noise; 0, I)`.
    """

    def body(carry: tuple[jax.Array, jax.Array], step: tuple) -> tuple[tuple, jax.Array]:
        x, total = carry
        t, d, eps = step
        force = flow.force(params, x, t, d, density, freeze_score=True)
        mean, sd = flow.kernel.forward(flow.schedule, x, force, t, d)
        ahead = mean + sd * eps
        # Of the forward kernel's density the factor sd^-dim; the caller has the rest.
        total = total + _log_backward(flow, x, ahead, t, d) + len(x) * jnp.log(sd)
        return (ahead, total), ahead

    carry = (start, jnp.zeros((), start.dtype))
    (_, total), path = jax.lax.scan(body, carry, (*grid(len(noise)), noise))
    return jnp.concatenate([start[None], path]), total


def path_log_weight(
    flow: ControlledFlow, params: Params, density: Density, path: jax.Array
) -> jax.Array:
    """`log w` of a path `(num_steps + 1, dim)`, as a function of `params` and of the path."""
    times, sizes = grid(len(path) - 1)

    def one(x: jax.Array, ahead: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
        force = flow.force(params, x, t, d, density, freeze_score=True)
        mean, sd = flow.kernel.forward(flow.schedule, x, force, t, d)
        return _log_backward(flow, x, ahead, t, d) - _log_normal(ahead, mean, sd)

    total = jax.vmap(one)(path[:-1], path[1:], times, sizes).sum()
    if not flow.kernel.starts_at_zero:
        total = total - _log_normal(path[0], jnp.zeros_like(path[0]), jnp.ones(()))
    return total + density.log_density(path[-1])


def _log_normal(x: jax.Array, mean: jax.Array, sd: jax.Array) -> jax.Array:
    square = (((x - mean) / sd) ** 2).sum()
    return -0.5 * square - x.shape[-1] * (jnp.log(sd) + 0.5 * jnp.log(2.0 * jnp.pi))


def _log_backward(
    flow: ControlledFlow, x: jax.Array, ahead: jax.Array, t: jax.Array, d: jax.Array
) -> jax.Array:
    mean, sd = flow.kernel.backward(flow.schedule, ahead, t, d)
    known = sd == 0.0
    return jnp.where(known, 0.0, _log_normal(x, mean, jnp.where(known, 1.0, sd)))


@dataclasses.dataclass(frozen=True)
class DiffusionFlow(ControlledFlow):
    """The same control, sampled by the stochastic process instead of the flow's ODE."""

    def steps(
        self, params: Params, num_steps: int = 1, density: Density | None = None
    ) -> DiffusionSteps:
        """The process in `num_steps` equal steps."""
        return DiffusionSteps(params, *grid(num_steps), density, self)


@struct.dataclass
class DiffusionSteps:
    """Steps of a stochastic sampler, in order of application.

    Attributes:
        params: of the network.
        times: where each step starts, `(num_steps,)`.
        sizes: of the steps, `(num_steps,)`.
        density: the target, whose gradient the control follows.
        flow: static.
    """

    params: Params
    times: jax.Array
    sizes: jax.Array
    density: Density | None
    flow: DiffusionFlow = struct.field(pytree_node=False)

    def moments(self, x: jax.Array, t: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of the next point."""
        force = self.flow.force(self.params, x, t, d, self.density, freeze_score=True)
        return self.flow.kernel.forward(self.flow.schedule, x, force, t, d)

    def split(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where the path starts, `(dim,)`, and the noise of its steps, `(num_steps, dim)`."""
        parts = z.reshape(-1, self.flow.dim)
        if self.flow.kernel.starts_at_zero:
            return jnp.zeros_like(parts[0]), parts
        return parts[0], parts[1:]


@base_dim.register
def _(steps: DiffusionSteps) -> int:
    starts = 0 if steps.flow.kernel.starts_at_zero else 1
    return steps.flow.dim * (steps.times.shape[-1] + starts)


@jacobian_size.register
def _(steps: DiffusionSteps) -> int:
    # A path has none.
    return base_dim(steps)


@identity.register
def _(steps: DiffusionSteps) -> Identity:
    return Identity(jnp.zeros(steps.flow.dim))


@apply.register
def _(steps: DiffusionSteps, z: jax.Array) -> jax.Array:
    return apply_with_log_det(steps, z)[0]


@apply_with_log_det.register
def _(steps: DiffusionSteps, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    path, total = simulate(steps.flow, steps.params, steps.density, *steps.split(z))
    return path[-1], total, jnp.ones((), z.dtype)


@invert.register
def _(
    steps: DiffusionSteps, x: jax.Array, num_newton: int = NEWTON_STEPS
) -> tuple[jax.Array, jax.Array]:
    # Any noising path that ends at x is a preimage; its noise is a function of the point.
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32).sum()
    key = jax.random.fold_in(jax.random.key(0), bits)
    noise = jax.random.normal(key, (len(steps.times), steps.flow.dim), x.dtype)

    def body(ahead: jax.Array, step: tuple) -> tuple[jax.Array, jax.Array]:
        t, d, eps = step
        mean, sd = steps.flow.kernel.backward(steps.flow.schedule, ahead, t, d)
        before = mean + sd * eps
        forward_mean, forward_sd = steps.moments(before, t, d)
        return before, (ahead - forward_mean) / forward_sd

    sequence = (steps.times, steps.sizes, noise)
    start, used = jax.lax.scan(body, x, sequence, reverse=True)
    if steps.flow.kernel.starts_at_zero:
        return used.reshape(-1), jnp.zeros((), x.dtype)
    return jnp.concatenate([start[None], used]).reshape(-1), jnp.zeros((), x.dtype)
