"""The contract of a training objective.

An objective is a frozen dataclass with one method, `loss(flow, params, batch) -> ()`. Its gradient
with respect to `params` is all that training uses, so a loss may be a surrogate: a scalar with the
right gradient and no meaning of its own. Losses are sums over dimensions and means over points, in
nats, so that they can be added with weights that do not depend on the dimension.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax

from numpyro_onestep.flow import FlowMap
from numpyro_onestep.networks import Params


class TrainingBatch(NamedTuple):
    """What one step of the optimiser sees, in the coordinates of the preconditioner.

    Attributes:
        base: fresh draws from the base `(n, dim)`.
        image: where the current one-step map takes them `(n, dim)`.
        image_score: gradient of the target's log-density there `(n, dim)`.
        points: posterior points moved by MCMC `(m, dim)`.
        points_score: gradient of the target's log-density there `(m, dim)`.
        preimages: approximate preimages of the points under the one-step map `(m, dim)`.
        times: stratified uniform times in (0, 1), one per point `(m,)`.
        noise: standard normal `(m, dim)`.
        uniform: further uniform numbers in (0, 1), `(m,)`.
        teacher: moving average of the parameters.
    """

    base: jax.Array
    image: jax.Array
    image_score: jax.Array
    points: jax.Array
    points_score: jax.Array
    preimages: jax.Array
    times: jax.Array
    noise: jax.Array
    uniform: jax.Array
    teacher: Params


class Objective(Protocol):
    """A training objective."""

    def loss(self, flow: FlowMap, params: Params, batch: TrainingBatch) -> jax.Array:
        """Scalar whose gradient with respect to `params` training descends."""
        ...


def noised(flow: FlowMap, batch: TrainingBatch, t: jax.Array) -> jax.Array:
    """The batch's points taken back to times `t: (m,)` with the batch's noise, `(m, dim)`."""
    alpha, sigma = (f(t)[:, None] for f in (flow.schedule.alpha, flow.schedule.sigma))
    return alpha * batch.points + sigma * batch.noise
