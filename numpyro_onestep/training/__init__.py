"""Training: rounds of drawing, moving and fitting, until more of them no longer help."""

from numpyro_onestep.training.draws import Draws, draw, standard_normal_log_density
from numpyro_onestep.training.journal import NO_JOURNAL, CheckpointFile, Journal
from numpyro_onestep.training.loop import TrainedSampler, TrainingHistory
from numpyro_onestep.training.methods import (
    CDDS,
    DDS,
    DIS,
    OSDS,
    PIS,
    SCDS,
    Method,
    ResampleMove,
)
from numpyro_onestep.training.mixture import TrainedMixture, train
from numpyro_onestep.training.moves import MovedPoints, log_weight_at, move, move_settings

__all__ = [
    "CDDS",
    "CheckpointFile",
    "DDS",
    "DIS",
    "Draws",
    "Journal",
    "Method",
    "MovedPoints",
    "NO_JOURNAL",
    "OSDS",
    "PIS",
    "ResampleMove",
    "SCDS",
    "TrainedMixture",
    "TrainedSampler",
    "TrainingHistory",
    "draw",
    "log_weight_at",
    "move",
    "move_settings",
    "standard_normal_log_density",
    "train",
]
