"""Training objectives: what a step of the optimiser descends (contract in `base`)."""

from numpyro_onestep.objectives.base import Objective, TrainingBatch
from numpyro_onestep.objectives.path_jeffreys import PathJeffreys
from numpyro_onestep.objectives.state_consistency import StateConsistency
from numpyro_onestep.objectives.target_score import TargetScoreMatching

__all__ = [
    "Objective",
    "PathJeffreys",
    "StateConsistency",
    "TargetScoreMatching",
    "TrainingBatch",
]
