r"""Gaussian kernels of a diffusion from noise to the posterior, and of its reversal.

A step of size `d` from `t` draws `x' ~ N(m(x, F), s^2)` with the force `F` of a flow; the noising
kernel gives `x ~ N(b x', c^2)`. Where `F = 0` every process here ends in N(0, I), the base.

A kernel depends on the two times through the flow's schedule; `kappa` is the length of the step.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp

from numpyro_onestep.schedules import Schedule


class Kernel(Protocol):
    """Moments of both kernels of one step, for scalars `t`, `d`."""

    @property
    def starts_at_zero(self) -> bool:
        """Whether every path starts at the origin instead of from N(0, I)."""
        ...

    def forward(
        self, schedule: Schedule, x: jax.Array, force: jax.Array, t: jax.Array, d: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean `(dim,)` and standard deviation `()` of the next point."""
        ...

    def backward(
        self, schedule: Schedule, x: jax.Array, t: jax.Array, d: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the point before `x`; the latter 0 if it is known."""
        ...


@dataclasses.dataclass(frozen=True)
class EulerMaruyama:
    """Variance-preserving diffusion in Euler-Maruyama steps, both ways (arXiv 2211.01364)."""

    starts_at_zero = False

    def forward(
        self, schedule: Schedule, x: jax.Array, force: jax.Array, t: jax.Array, d: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`x + 2 kappa (F - x / 2)` and `sqrt(2 kappa)`."""
        rate = 2.0 * schedule.kappa(t, d)
        return x + rate * (force - 0.5 * x), jnp.sqrt(rate)

    def backward(
        self, schedule: Schedule, x: jax.Array, t: jax.Array, d: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`x (1 - kappa)` and `sqrt(2 kappa)`."""
        rate = 2.0 * schedule.kappa(t, d)
        return x * (1.0 - 0.5 * rate), jnp.sqrt(rate)


@dataclasses.dataclass(frozen=True)
class ExponentialIntegrator:
    """Variance-preserving diffusion with its exact linear part (arXiv 2302.13834).

    Without a force both kernels keep N(0, I) exactly, however long the step.
    """

    starts_at_zero = False

    def forward(
        self, schedule: Schedule, x: jax.Array, force: jax.Array, t: jax.Array, d: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`a x + 2 (1 - a) F` and `sqrt(1 - a^2)` with `a = exp(-kappa)`."""
        kappa = schedule.kappa(t, d)
        return jnp.exp(-kappa) * x - 2.0 * jnp.expm1(-kappa) * force, _spread(kappa)

    def backward(
        self, schedule: Schedule, x: jax.Array, t: jax.Array, d: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`a x` and `sqrt(1 - a^2)`."""
        kappa = schedule.kappa(t, d)
        return jnp.exp(-kappa) * x, _spread(kappa)


def _spread(kappa: jax.Array) -> jax.Array:
    return jnp.sqrt(-jnp.expm1(-2.0 * kappa))


@dataclasses.dataclass(frozen=True)
class PinnedBrownianMotion:
    """Brownian motion from the origin, reversed by its bridge (arXiv 2111.15141); no schedule."""

    starts_at_zero = True

    def forward(
        self, schedule: Schedule, x: jax.Array, force: jax.Array, t: jax.Array, d: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`x + d F` and `sqrt(d)`."""
        return x + d * force, jnp.sqrt(d)

    def backward(
        self, schedule: Schedule, x: jax.Array, t: jax.Array, d: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`x t / (t + d)` and `sqrt(d t / (t + d))`."""
        return x * (t / (t + d)), jnp.sqrt(d * t / (t + d))
