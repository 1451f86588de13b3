"""Training: rounds of drawing, moving and fitting, until more of them no longer help."""

from numpyro_onestep.training.draws import Draws, draw
from numpyro_onestep.training.loop import TrainedSampler, TrainingHistory, train
from numpyro_onestep.training.moves import MovedPoints, log_weight_at, move
from numpyro_onestep.training.settings import TrainingSettings

__all__ = [
    "Draws",
    "MovedPoints",
    "TrainedSampler",
    "TrainingHistory",
    "TrainingSettings",
    "draw",
    "log_weight_at",
    "move",
    "train",
]
