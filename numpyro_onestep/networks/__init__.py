"""Networks of the flow, conditioned on time and step size; parameters are plain pytrees."""

from numpyro_onestep.networks.control import ControlNetwork
from numpyro_onestep.networks.gated_residual import Blocks, GatedResidualNetwork, Params

__all__ = ["Blocks", "ControlNetwork", "GatedResidualNetwork", "Params"]
