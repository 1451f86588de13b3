"""The Gaussian fit that suits a dimension."""

from __future__ import annotations

import jax
import numpy as np

from numpyro_onestep.preconditioner.base import GaussianFit
from numpyro_onestep.preconditioner.drawn import fit_from_draws
from numpyro_onestep.preconditioner.hessian import fit_from_hessians
from numpyro_onestep.target import Target, has_hessians

# Up to here, draws suffice; beyond, an eigendecomposition per step would dominate.
_MAX_DRAWN_DIM = 128
# Up to here, a Hessian fits into memory and a step takes seconds.
_MAX_HESSIAN_DIM = 2048


def fit_gaussian(
    target: Target,
    start: jax.Array | np.ndarray,
    scale: jax.Array | np.ndarray,
    rng_key: jax.Array,
    centring: jax.Array | np.ndarray | float = 0.0,
) -> GaussianFit:
    """Fits mean and covariance to the target; compiled once per program of a target.

    From draws in up to 128 dimensions, from Hessians in up to 2048; beyond, and for models with
    gradients that cannot be differentiated again, scales only.

    Args:
        target: the model.
        start: where to begin, `(dim,)` in its coordinates.
        scale: standard deviations to start with, `(dim,)`.
        rng_key: for the draws.
        centring: 1 to fit the centredness of a recentred target too, from the target's own, where
            the fit is one from draws; 0 to leave it.
    """
    if _MAX_DRAWN_DIM < target.dim <= _MAX_HESSIAN_DIM and has_hessians(target, start):
        return fit_from_hessians(target, start, scale, rng_key)
    dense = target.dim <= _MAX_DRAWN_DIM
    return fit_from_draws(target, start, scale, rng_key, centring, dense=dense)
