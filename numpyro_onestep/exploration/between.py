r"""What lies between two fits, or between a fit and a point: when they are separate modes.

Two fits are one mode unless they hardly overlap, by Bhattacharyya's distance

    D = (m_1 - m_2)' S^-1 (m_1 - m_2) / 8 + log(|S| / sqrt(|S_1| |S_2|)) / 2,  S = (S_1 + S_2) / 2,

and the log-density dips below its chord on the straight line between their centres: between two
hills it has a valley there, on the way to a needle within a hill it hardly rises before the end.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep.compilation import compiled
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import Target, over_points

NUM_BETWEEN = 33
"""Points of a straight line at which the density is looked at, its ends among them."""

# Equal normal densities are that far apart at 4 standard deviations; there the log-density at half
# the way is 1.3 below the ends.
_SEPARATE = 2.0
_DIP = 1.0


def are_separate(target: Target, a: Affine, b: Affine) -> bool:
    """Whether two fits hardly overlap, with a dip below the chord between their centres."""
    if bhattacharyya(a, b) < _SEPARATE:
        return False
    (values,) = _along(target, a.mean, b.mean[None])
    chord = np.linspace(values[0], values[-1], NUM_BETWEEN)
    return bool((chord - values).max() > _DIP)


def bhattacharyya(a: Affine, b: Affine) -> float:
    """Bhattacharyya's distance: minus the log of the overlap of two fits' densities."""
    factors = [np.asarray(affine.factor, np.float64) for affine in (a, b)]
    stacked = np.concatenate([f.T for f in factors]) / math.sqrt(2.0)
    root = np.asarray(np.linalg.qr(stacked, mode="r")).T
    shift = np.asarray(a.mean, np.float64) - np.asarray(b.mean, np.float64)
    between = np.linalg.solve(root, shift)
    log_volumes = [np.log(np.abs(np.diagonal(f))).sum() for f in (root, *factors)]
    return float(between @ between / 8.0 + log_volumes[0] - 0.5 * sum(log_volumes[1:]))


def has_valley(target: Target, start: jax.Array, ends: np.ndarray | jax.Array) -> np.ndarray:
    """Whether the log-density dips below both ends on the way from `start` to each, `(n,)`.

    Args:
        target: the model.
        start: unconstrained point, `(dim,)`.
        ends: unconstrained points, `(n, dim)`.
    """
    values = _along(target, start, ends)
    return values.min(axis=1) < np.minimum(values[:, 0], values[:, -1]) - _DIP


def _along(target: Target, start: jax.Array, ends: np.ndarray | jax.Array) -> np.ndarray:
    """Log-densities `(n, NUM_BETWEEN)` between `start` and each end; minus infinity where unknown.

    A line through a region without density has a dip if anything has.
    """
    values = np.asarray(_log_density_along(target, start, ends), np.float64)
    return np.where(np.isfinite(values), values, -np.inf)


@compiled()
def _log_density_along(target: Target, start: jax.Array, ends: jax.Array) -> jax.Array:
    share = jnp.linspace(0.0, 1.0, NUM_BETWEEN, dtype=start.dtype)
    points = start + share[:, None] * (ends[:, None, :] - start)
    values = over_points(target.log_density, target, points.reshape(-1, points.shape[-1]))
    return values.reshape(points.shape[:2])
