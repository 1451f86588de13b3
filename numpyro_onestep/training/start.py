"""Where training starts: from the Gaussian fit, or from a map that has its skewness already."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import Flow
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density
from numpyro_onestep.training.draws import Draws, affinity, draw
from numpyro_onestep.training.methods import Method
from numpyro_onestep.training.updates import map_of


def best_start(
    density: Density,
    flow: Flow,
    method: Method,
    params: Params,
    of_fit: Draws,
    rng_key: jax.Array,
) -> tuple[Params, int]:
    """The parameters whose draws are closest to the target, of those that a method offers.

    Every offer is measured by the same base draws, the untrained parameters among them.

    Args:
        density: the target in the coordinates of its Gaussian fit.
        flow: the flow to train.
        method: how.
        params: the untrained parameters.
        of_fit: `n` draws of the fit itself, the first batch that the method looks at.
        rng_key: for all others.

    Returns:
        The parameters, and the number of gradients of the target that this took.
    """
    num, num_batches = len(of_fit.base), method.num_start_batches(flow.dim)
    if not num_batches:
        return params, 0

    def drawn(steps: Any, i: int) -> Draws:
        return draw(density.target, density.affine, steps, jax.random.fold_in(rng_key, i), num)

    fit = flows.identity(map_of(flow, 1, params, density))
    batches = [of_fit, *(drawn(fit, i) for i in range(1, num_batches))]
    base, score = (
        np.stack([np.asarray(getattr(draws, name)) for draws in batches])
        for name in ("base", "score")
    )
    offers = [params, *method.starts(params, base, score)]
    closeness = [affinity(drawn(map_of(flow, 1, offer, density), num_batches)) for offer in offers]
    return offers[int(np.argmax(closeness))], num * (num_batches - 1 + len(offers))
