"""Flows: step-conditioned maps from noise to the posterior, with weights that are exact."""

from numpyro_onestep.flow.base import (
    Flow,
    apply,
    apply_with_log_det,
    base_dim,
    identity,
    invert,
    jacobian_size,
)
from numpyro_onestep.flow.controlled import ControlledFlow, ControlledSteps
from numpyro_onestep.flow.diffusion import (
    DiffusionFlow,
    DiffusionSteps,
    path_log_weight,
    simulate,
)
from numpyro_onestep.flow.kernels import (
    EulerMaruyama,
    ExponentialIntegrator,
    Kernel,
    PinnedBrownianMotion,
)
from numpyro_onestep.flow.residual import FlowMap, push_score
from numpyro_onestep.flow.trace import TraceLogDet
from numpyro_onestep.networks import Blocks

__all__ = [
    "Blocks",
    "ControlledFlow",
    "ControlledSteps",
    "DiffusionFlow",
    "DiffusionSteps",
    "EulerMaruyama",
    "ExponentialIntegrator",
    "Flow",
    "FlowMap",
    "Kernel",
    "PinnedBrownianMotion",
    "TraceLogDet",
    "apply",
    "apply_with_log_det",
    "base_dim",
    "identity",
    "invert",
    "jacobian_size",
    "path_log_weight",
    "push_score",
    "simulate",
]
