"""An objective whose weight grows from nothing: consistency with a teacher that has learned."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_onestep.networks import Params
from numpyro_onestep.objectives.base import Objective


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """Another objective times `min(1, update / num_updates)`.

    Attributes:
        objective: the other one.
        num_updates: optimiser steps until it counts in full.
    """

    objective: Objective
    num_updates: int = 2500

    def loss(self, flow: Any, params: Params, batch: Any) -> jax.Array:
        """The weighted loss; the batch must know its `update`."""
        share = jnp.minimum(1.0, batch.update / self.num_updates)
        return share * self.objective.loss(flow, params, batch)
