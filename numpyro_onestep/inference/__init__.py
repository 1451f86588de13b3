"""The facade: what a user of NumPyro calls in place of `MCMC`."""

from numpyro_onestep.inference.drawing import OneStepDraws
from numpyro_onestep.inference.facade import OneStepInference

__all__ = ["OneStepDraws", "OneStepInference"]
