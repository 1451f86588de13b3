r"""Path objectives: the sampler's stochastic process against the noising of the target.

With `log w` the log ratio of the path densities (see `flow.diffusion`), both objectives vanish in
their gradient only where the process reverses the noising:

    PathKL            -E[log w]          over the sampler's paths, differentiated through them
    PathLogVariance   Var[log w]         over the same paths, held constant

The first is the negative evidence lower bound (Berner et al., arXiv 2211.01364, the path-space
objective of arXiv 2512.05251); the second needs no derivative of a simulation (Richter and Berner,
arXiv 2307.01198, the objective of arXiv 2502.07579).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_onestep.flow import ControlledFlow, path_log_weight, simulate
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density


class PathBatch(NamedTuple):
    """What one step of the optimiser sees when a method simulates paths.

    Attributes:
        start: where the paths start, `(n, dim)`.
        noise: of their steps, `(n, num_steps, dim)`.
        path: the paths under the current parameters, held constant, `(n, num_steps + 1, dim)`.
        times: uniform numbers in (0, 1), `(n,)`.
        uniform: further ones, `(n,)`.
        probes: random signs, `(n, dim)`.
        teacher: parameters of the teacher.
        density: the target.
        update: optimiser steps before this one, `()`.
    """

    start: jax.Array
    noise: jax.Array
    path: jax.Array
    times: jax.Array
    uniform: jax.Array
    probes: jax.Array
    teacher: Params
    density: Density
    update: jax.Array

    def states(self, flow: ControlledFlow, t: jax.Array) -> jax.Array:
        """Points `(n, dim)` of the paths at times `t: (n,)` of their grid."""
        index = jnp.round(t * (self.path.shape[1] - 1)).astype(int)
        return self.path[jnp.arange(len(index)), index]

    def mean(self, errors: jax.Array) -> jax.Array:
        """Mean of one error per path `(n,)`, over those that are finite."""
        usable = jnp.isfinite(errors) & jnp.isfinite(self.path).all(axis=(1, 2))
        return jnp.where(usable, errors, 0.0).sum() / jnp.maximum(usable.sum(), 1)


@dataclasses.dataclass(frozen=True)
class PathKL:
    """Negative evidence lower bound of the process, up to a constant."""

    def loss(self, flow: ControlledFlow, params: Params, batch: PathBatch) -> jax.Array:
        """Mean of `-log w` over the paths, in nats."""

        def bound(start: jax.Array, noise: jax.Array) -> jax.Array:
            path, volume = simulate(flow, params, batch.density, start, noise)
            return batch.density.log_density(path[-1]) + volume

        return -batch.mean(jax.vmap(bound)(batch.start, batch.noise))


@dataclasses.dataclass(frozen=True)
class PathLogVariance:
    """Variance of the log-weights of the process's own paths.

    Attributes:
        max_deviation: log-weights further from their median, in nats, count as if they were this
            far: single paths must not steer a whole step. Infinity for the published objective.
    """

    max_deviation: float = float("inf")

    def loss(self, flow: ControlledFlow, params: Params, batch: PathBatch) -> jax.Array:
        """Variance over the paths, in nats squared."""

        def log_weight(path: jax.Array) -> jax.Array:
            return path_log_weight(flow, params, batch.density, path)

        log_w = jax.vmap(log_weight)(batch.path)
        centre = jax.lax.stop_gradient(jnp.nanmedian(log_w))
        log_w = jnp.clip(log_w - centre, -self.max_deviation, self.max_deviation)
        return batch.mean((log_w - batch.mean(log_w)) ** 2)
