"""One-step posterior draws, exact weights, evidence and a verdict for any NumPyro model."""

from numpyro_onestep.calibration import Calibration, simulation_based_calibration
from numpyro_onestep.comparison import EvidenceComparison, compare_evidence
from numpyro_onestep.diagnostics import Verdict
from numpyro_onestep.flow import TraceLogDet
from numpyro_onestep.inference import OneStepDraws, OneStepInference, run_many
from numpyro_onestep.plots import (
    plot_diagnostics,
    plot_marginals,
    plot_posterior_and_weights,
    plot_training,
)
from numpyro_onestep.training import CDDS, DDS, DIS, OSDS, PIS, SCDS, Method, ResampleMove

__all__ = [
    "CDDS",
    "DDS",
    "DIS",
    "OSDS",
    "PIS",
    "SCDS",
    "Calibration",
    "EvidenceComparison",
    "Method",
    "OneStepDraws",
    "OneStepInference",
    "ResampleMove",
    "TraceLogDet",
    "Verdict",
    "compare_evidence",
    "plot_diagnostics",
    "plot_marginals",
    "plot_posterior_and_weights",
    "plot_training",
    "run_many",
    "simulation_based_calibration",
]
