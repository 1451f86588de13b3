"""The contract of a training objective.

An objective is a frozen dataclass with one method, `loss(flow, params, batch) -> ()`. Its gradient
with respect to `params` is all that training uses, so a loss may be a surrogate: a scalar with the
right gradient and no meaning of its own. Losses are sums over dimensions and means over points, in
nats, so that they can be added with weights that do not depend on the dimension.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from numpyro_onestep.flow import Flow
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density

# Points further from the origin than this, in units of sqrt(dim), teach no velocity: in the tails
# of a posterior without moments single points would outweigh all others.
_MAX_DISTANCE = 6.0


class TrainingBatch(NamedTuple):
    """What one step of the optimiser sees, in the coordinates of the preconditioner.

    Attributes:
        base: fresh draws from the base `(n, dim)`.
        image: where the current one-step map takes them `(n, dim)`.
        image_score: gradient of the target's log-density there `(n, dim)`.
        outer: points further out than draws of the base, `(k, dim)`: for objectives that are best
            at every point and not on average only.
        outer_score: gradient of the target's log-density where the map takes them `(k, dim)`.
        points: posterior points moved by MCMC `(m, dim)`.
        points_score: gradient of the target's log-density there `(m, dim)`.
        preimages: approximate preimages of the points under the one-step map `(m, dim)`.
        times: stratified uniform times in (0, 1), one per point `(m,)`.
        noise: standard normal `(m, dim)`.
        uniform: further uniform numbers in (0, 1), `(m,)`.
        teacher: moving average of the parameters.
        density: the target, for flows that follow its gradient.
    """

    base: jax.Array
    image: jax.Array
    image_score: jax.Array
    outer: jax.Array
    outer_score: jax.Array
    points: jax.Array
    points_score: jax.Array
    preimages: jax.Array
    times: jax.Array
    noise: jax.Array
    uniform: jax.Array
    teacher: Params
    density: Density | None = None

    def states(self, flow: Flow, t: jax.Array) -> jax.Array:
        """Points `(m, dim)` of the flow's paths at times `t: (m,)`: noised posterior points."""
        alpha, sigma = (f(t)[:, None] for f in (flow.schedule.alpha, flow.schedule.sigma))
        # What `mean` leaves out must not overflow: its gradient would be 0 times infinity.
        points = jnp.where(self._near[:, None], self.points, 0.0)
        return alpha * points + sigma * self.noise

    def mean(self, errors: jax.Array) -> jax.Array:
        """Mean of one error per point `(m,)`, over the points that are not far out."""
        return jnp.where(self._near, errors, 0.0).mean()

    @property
    def _near(self) -> jax.Array:
        return (self.points**2).sum(axis=-1) < _MAX_DISTANCE**2 * self.points.shape[-1]


class Objective(Protocol):
    """A training objective."""

    def loss(self, flow: Any, params: Params, batch: Any) -> jax.Array:
        """Scalar whose gradient with respect to `params` training descends.

        The flow and the batch are those of a method that the objective suits.
        """
        ...
