"""The preconditioner: a Gaussian fit, in whose coordinates the flow works."""

from numpyro_onestep.preconditioner.base import (
    START_SCALE,
    Affine,
    Density,
    GaussianFit,
    log_density,
)
from numpyro_onestep.preconditioner.fit import fit_gaussian

__all__ = ["START_SCALE", "Affine", "Density", "GaussianFit", "fit_gaussian", "log_density"]
