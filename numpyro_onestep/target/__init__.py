"""Targets: log-densities of NumPyro models in unconstrained coordinates, with their data."""

from numpyro_onestep.target.base import Target
from numpyro_onestep.target.build import build_target
from numpyro_onestep.target.likelihood import pointwise_log_likelihood
from numpyro_onestep.target.normalisation import Evidence
from numpyro_onestep.target.predictive import predictive_draws, prior_draws

__all__ = [
    "Evidence",
    "Target",
    "build_target",
    "pointwise_log_likelihood",
    "predictive_draws",
    "prior_draws",
]
