"""The facade: what a user of NumPyro calls in place of `MCMC`."""

from numpyro_onestep.inference.drawing import OneStepDraws
from numpyro_onestep.inference.facade import OneStepInference
from numpyro_onestep.inference.many import run_many

__all__ = ["OneStepDraws", "OneStepInference", "run_many"]
