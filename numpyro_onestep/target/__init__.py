"""Targets: log-densities of NumPyro models in unconstrained coordinates, with their data."""

from numpyro_onestep.target.base import Target
from numpyro_onestep.target.batches import in_batches, over_points
from numpyro_onestep.target.build import build_target
from numpyro_onestep.target.conditional import (
    GRADIENTS_PER_CONDITIONAL,
    Conditional,
    conditional,
    find_conditional,
    unconditional,
)
from numpyro_onestep.target.hessians import has_hessians
from numpyro_onestep.target.likelihood import log_prior_by_site, pointwise_log_likelihood
from numpyro_onestep.target.loc_scale import Centredness
from numpyro_onestep.target.normalisation import Evidence
from numpyro_onestep.target.precision import (
    can_be_double,
    in_double,
    log_density_at,
    rounding_errors,
)
from numpyro_onestep.target.predictive import (
    constant_arrays,
    drawn_given_data,
    given_observations,
    predictive_draws,
    prior_draws,
)
from numpyro_onestep.target.recentred import (
    can_be_recentred,
    centredness_of,
    constant_centredness,
    has_other_coordinates,
    num_scored,
    recentred,
    recentred_points,
    starting_points,
    users_points,
    users_target,
)
from numpyro_onestep.target.traces import apart

__all__ = [
    "GRADIENTS_PER_CONDITIONAL",
    "Centredness",
    "Conditional",
    "Evidence",
    "Target",
    "apart",
    "build_target",
    "can_be_double",
    "can_be_recentred",
    "centredness_of",
    "conditional",
    "constant_arrays",
    "constant_centredness",
    "drawn_given_data",
    "find_conditional",
    "has_hessians",
    "has_other_coordinates",
    "given_observations",
    "log_density_at",
    "log_prior_by_site",
    "in_batches",
    "in_double",
    "num_scored",
    "over_points",
    "pointwise_log_likelihood",
    "predictive_draws",
    "prior_draws",
    "recentred",
    "recentred_points",
    "rounding_errors",
    "starting_points",
    "unconditional",
    "users_points",
    "users_target",
]
