"""Simulation-based calibration: does the inference find what the prior has hidden?

* `simulation`: draws parameters and data, fits each data set, ranks the truth among the draws;
* `result`: what came out, with a test and a picture.
"""

from numpyro_onestep.calibration.result import Calibration
from numpyro_onestep.calibration.simulation import simulation_based_calibration

__all__ = ["Calibration", "simulation_based_calibration"]
