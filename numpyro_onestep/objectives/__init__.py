"""Training objectives: what a step of the optimiser descends (contract in `base`)."""

from numpyro_onestep.objectives.base import Objective, TrainingBatch
from numpyro_onestep.objectives.distillation import ConsistencyDistillation, DistillationBatch
from numpyro_onestep.objectives.path_jeffreys import PathJeffreys
from numpyro_onestep.objectives.paths import PathBatch, PathKL, PathLogVariance
from numpyro_onestep.objectives.state_consistency import Intervals, StateConsistency
from numpyro_onestep.objectives.target_score import TargetScoreMatching
from numpyro_onestep.objectives.volume import JacobianPenalty, VolumeConsistency
from numpyro_onestep.objectives.warm_up import WarmUp

__all__ = [
    "ConsistencyDistillation",
    "DistillationBatch",
    "Intervals",
    "JacobianPenalty",
    "Objective",
    "PathBatch",
    "PathJeffreys",
    "PathKL",
    "PathLogVariance",
    "StateConsistency",
    "TargetScoreMatching",
    "TrainingBatch",
    "VolumeConsistency",
    "WarmUp",
]
