"""Methods of training: what `OneStepInference(model, method=...)` takes."""

from numpyro_onestep.training.methods.base import Method
from numpyro_onestep.training.methods.cdds import CDDS
from numpyro_onestep.training.methods.diffusion import DiffusionMethod
from numpyro_onestep.training.methods.multi_step import DDS, DIS, PIS
from numpyro_onestep.training.methods.osds import OSDS
from numpyro_onestep.training.methods.resample_move import ResampleMove
from numpyro_onestep.training.methods.scds import SCDS

__all__ = ["CDDS", "DDS", "DIS", "OSDS", "PIS", "SCDS", "DiffusionMethod", "Method", "ResampleMove"]
