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

import jax
import jax.numpy as jnp


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
