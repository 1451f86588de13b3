"""The coordinates to explore and to train in: centred, non-centred, or between, by measurement."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep.preconditioner import START_SCALE, GaussianFit, fit_gaussian
from numpyro_onestep.target import (
    Centredness,
    Target,
    can_be_recentred,
    constant_centredness,
    has_other_coordinates,
    num_scored,
    recentred,
    starting_points,
)

# Where the centredness starts from when it is fitted: the bound has more than one maximum.
_STARTS = (1.0, 0.5, 0.0)
# Nats by which a Gaussian fit in other coordinates must be closer to the posterior.
_LEAST_GAIN = 0.05
# The same in place of normal scores: what the likelihood says little about has exponential tails
# there. Spread of a fit, in nats, from which on there may be so much to gain.
_LEAST_GAIN_OF_USERS, _LEAST_SPREAD = 0.5, 0.2


class Centring(NamedTuple):
    """The coordinates of the Gaussian fit that is closest to the posterior.

    Attributes:
        centredness: of each loc-scale site that can be recentred; None for the user's coordinates.
        fitted: the fit, where there was a choice.
        num_gradients: gradients of the target that the other fits took.
    """

    centredness: Centredness | None
    fitted: tuple[GaussianFit, ...] = ()
    num_gradients: int = 0


def choose_centring(target: Target, rng_key: jax.Array) -> Centring:
    """Compares the user's own coordinates with those that are fitted jointly with the Gaussian.

    The lower bound of a Gaussian fit is the evidence minus its divergence from the posterior, and
    the evidence is the same in all coordinates: the larger bound is the smaller divergence.
    """
    if not has_other_coordinates(target):
        return Centring(None)
    if not can_be_recentred(target):
        return _scores_or_not(target, rng_key)
    fits = [
        _fit(recentred(target, constant_centredness(target, start)), rng_key, fitted)
        for start, fitted in ((1.0, 0.0), *((start, 1.0) for start in _STARTS))
    ]
    as_written = fits[0]
    # A fit that failed has no bound that could be the best.
    best = max(fits, key=lambda fit: np.nan_to_num(fit.bound, nan=-np.inf))
    gains = not best.bound <= as_written.bound + _LEAST_GAIN
    chosen = best if gains else as_written
    others = sum(int(fit.num_gradients) for fit in fits if fit is not chosen)
    return Centring(chosen.centredness, (chosen,), others)


def _scores_or_not(target: Target, rng_key: jax.Array) -> Centring:
    """Normal scores, unless the user's own coordinates are much closer to the posterior.

    Products and ratios of positive values, which are curved ridges in normal scores, are sums of
    logarithms.
    """
    if num_scored(target) < 2:
        return Centring({})
    scores = _fit(recentred(target, {}), rng_key)
    if scores.spread <= _LEAST_SPREAD:
        return Centring({}, (scores,))
    users = _fit(target, rng_key)
    if users.bound > np.nan_to_num(scores.bound, nan=-np.inf) + _LEAST_GAIN_OF_USERS:
        return Centring(None, (users,), int(scores.num_gradients))
    return Centring({}, (scores,), int(users.num_gradients))


def _fit(target: Target, rng_key: jax.Array, centring: float = 0.0) -> GaussianFit:
    """A fit from the same place of the user's model in all coordinates."""
    key_start, key_fit = (jax.random.fold_in(rng_key, i) for i in range(2))
    point = starting_points(target, key_start, 1)[0]
    return fit_gaussian(target, point, jnp.full_like(point, START_SCALE), key_fit, centring)
