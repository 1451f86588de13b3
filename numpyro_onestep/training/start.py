"""Where training starts: from the Gaussian fit, or with the skewness of the posterior already.

Of a map with units enough, or of coordinates that are bent before any map.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from numpyro_onestep import flow as flows
from numpyro_onestep.flow import Flow
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Affine, Bent, Density
from numpyro_onestep.target import Target
from numpyro_onestep.training.draws import Draws, affinity, draw
from numpyro_onestep.training.methods import Method
from numpyro_onestep.training.skewness import SHARES, find_ridges
from numpyro_onestep.training.updates import map_of

# How many batches of draws bends come from, and the affinity to the target from which on they are
# taken: where they explain less, training does better in coordinates that are straight.
_NUM_BATCHES = 4
_LEAST_AFFINITY = 0.8


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
    batches = _stacked([of_fit, *(drawn(fit, i) for i in range(1, num_batches))])
    offers = [params, *method.starts(params, *batches)]
    closeness = [affinity(drawn(map_of(flow, 1, offer, density), num_batches)) for offer in offers]
    return offers[int(np.argmax(closeness))], num * (num_batches - 1 + len(offers))


def best_bends(
    target: Target,
    fit: Affine,
    num_ridges: int,
    identity: Any,
    of_fit: Draws,
    rng_key: jax.Array,
) -> tuple[Affine, Draws, int]:
    """The bends that bring a Gaussian fit closest to the target, if they bring it close.

    Half, three quarters or all of those that its skewness asks for, or none; each is measured by
    the same base draws.

    Args:
        target: the model.
        fit: without bends.
        num_ridges: how many directions to bend it along.
        identity: a map of the flow that moves nothing.
        of_fit: `n` draws of the fit itself, the first batch to look at.
        rng_key: for all others.

    Returns:
        The fit, bent or not, `n` draws of it, and the number of gradients of the target that this
        took.
    """
    num = len(of_fit.base)

    def drawn(affine: Affine, i: int) -> Draws:
        return draw(target, affine, identity, jax.random.fold_in(rng_key, i), num)

    batches = _stacked([of_fit, *(drawn(fit, i) for i in range(1, _NUM_BATCHES))])
    base, score = (part.reshape(-1, target.dim) for part in batches)
    # Arrays of the host, which compile nothing.
    found: Any = find_ridges(base, score, num_ridges)
    directions, weights = found
    offers = [
        Bent(fit.mean, fit.factor, directions, share * weights)
        for share in SHARES
        if np.isfinite(weights).all()
    ]
    draws = [drawn(offer, _NUM_BATCHES) for offer in offers]
    took = num * (_NUM_BATCHES - 1 + len(offers))
    closeness = [affinity(one) for one in draws]
    if max(closeness, default=0.0) < _LEAST_AFFINITY:
        return fit, of_fit, took
    best = int(np.argmax(closeness))
    return offers[best], draws[best], took


def _stacked(batches: list[Draws]) -> tuple[np.ndarray, np.ndarray]:
    """Base draws and scores of batches, each `(num_batches, n, dim)`."""
    base = np.stack([np.asarray(draws.base) for draws in batches])
    return base, np.stack([np.asarray(draws.score) for draws in batches])
