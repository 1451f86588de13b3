r"""Noise schedules: how a draw travels from the base to the posterior.

Time `t` runs from noise (0) to data (1). A variance-preserving path mixes a posterior point `z_1`
and noise `eps`,

    z_t = alpha(t) z_1 + sigma(t) eps,     alpha^2 + sigma^2 = 1,

and its probability-flow ODE is `dz = (z + score_t(z)) dkappa` with `kappa = log alpha` (the
integral of beta / 2; arXiv 2512.05251, section 3). A step of size `d` from `t` therefore has length
`kappa(t, d) = log alpha(t + d) - log alpha(t)`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp


class Schedule(Protocol):
    """How noise gives way to the posterior."""

    def alpha(self, t: jax.Array) -> jax.Array:
        """Share of the posterior point in `z_t`."""
        ...

    def sigma(self, t: jax.Array) -> jax.Array:
        """Share of the noise in `z_t`."""
        ...

    def kappa(self, t: jax.Array, d: jax.Array) -> jax.Array:
        """Length of a step of size `d` from `t`; zero for `d = 0`."""
        ...


@dataclasses.dataclass(frozen=True)
class CosineSchedule:
    """The cosine schedule, `alpha(t) = sin(pi/2 (t_min + (1 - t_min) t))`.

    Attributes:
        t_min: keeps `alpha(0)` positive, so that the whole path has finite length.
    """

    t_min: float = 0.02

    def _angle(self, t: jax.Array) -> jax.Array:
        return 0.5 * jnp.pi * (self.t_min + (1.0 - self.t_min) * t)

    def alpha(self, t: jax.Array) -> jax.Array:
        """Share of the posterior point in `z_t`."""
        return jnp.sin(self._angle(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        """Share of the noise in `z_t`."""
        return jnp.cos(self._angle(t))

    def kappa(self, t: jax.Array, d: jax.Array) -> jax.Array:
        """Length of a step of size `d` from `t`; zero for `d = 0`."""
        return jnp.log(self.alpha(t + d)) - jnp.log(self.alpha(t))


@dataclasses.dataclass(frozen=True)
class EulerCosineSchedule:
    r"""The noise rate of published one-step samplers, with the lengths of Euler steps.

    `beta(t) = (beta_max - beta_min) / 2 cos^2(pi/2 t / (1 + offset)) + beta_min / 2`, as the public
    code of arXiv 2512.05251 has it, with t from noise to data. A step has the length
    `kappa(t, d) = beta(t) d / 2`, by the rate at its start: lengths of steps do not add up, and the
    map of a large step is not that of two half steps even for a Gaussian.

    Attributes:
        beta_min: twice the rate at the end, up to the offset.
        beta_max: twice the rate at the start.
        offset: keeps the rate at the end positive.
    """

    beta_min: float = 0.01
    beta_max: float = 10.0
    offset: float = 0.008

    @property
    def _frequency(self) -> float:
        return 0.5 * math.pi / (1.0 + self.offset)

    def beta(self, t: jax.Array) -> jax.Array:
        """Rate of the noise."""
        cosine = jnp.cos(self._frequency * t)
        return 0.5 * (self.beta_max - self.beta_min) * cosine**2 + 0.5 * self.beta_min

    def kappa(self, t: jax.Array, d: jax.Array) -> jax.Array:
        """Length of an Euler step of size `d` from `t`."""
        return 0.5 * self.beta(t) * d

    def _log_alpha(self, t: jax.Array) -> jax.Array:
        def integral(t: jax.Array | float) -> jax.Array:
            squares = 0.5 * t + jnp.sin(2.0 * self._frequency * t) / (4.0 * self._frequency)
            return 0.5 * (self.beta_max - self.beta_min) * squares + 0.5 * self.beta_min * t

        return -0.5 * (integral(1.0) - integral(t))

    def alpha(self, t: jax.Array) -> jax.Array:
        """Share of the posterior point in `z_t`, in the limit of small steps."""
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        """Share of the noise in `z_t`, in the limit of small steps."""
        return jnp.sqrt(-jnp.expm1(2.0 * self._log_alpha(t)))
