"""The preconditioner: a Gaussian fit, bent or not, in whose coordinates the flow works."""

from numpyro_onestep.preconditioner.base import (
    START_SCALE,
    Affine,
    Density,
    GaussianFit,
    log_density,
)
from numpyro_onestep.preconditioner.bent import Bent, bent_as, unbent
from numpyro_onestep.preconditioner.fit import fit_gaussian

__all__ = [
    "START_SCALE",
    "Affine",
    "Bent",
    "Density",
    "GaussianFit",
    "bent_as",
    "fit_gaussian",
    "log_density",
    "unbent",
]
