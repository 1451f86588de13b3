"""Targets: log-densities of NumPyro models in unconstrained coordinates, with their data."""

from numpyro_onestep.target.base import Target
from numpyro_onestep.target.build import build_target
from numpyro_onestep.target.normalisation import Evidence

__all__ = ["Evidence", "Target", "build_target"]
