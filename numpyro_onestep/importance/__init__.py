"""Importance weights of the one-step draws: pure functions over NumPy float64 arrays.

Notation, shared by every function of this room. Draw `s` of the sampler is `x_s = T(z_s)` with
`z_s ~ p0`, and carries

    log w_s = log gamma(x_s) + log|det dT/dz (z_s)| - log p0(z_s)      (`log_weight`, shape (S,))
    sigma_s = sign det dT/dz (z_s)  in {-1, 0, +1}                     (`sign`, shape (S,))

so that `E[sigma w] = Z` even where the map folds. Three kinds of weight need care:

* `log_weight = -inf` is a weight of zero: the target has no mass there. Legitimate.
* `log_weight = NaN` or `+inf` is a weight nobody knows. It is never taken for zero in silence:
  it is counted by :func:`finite_share`, makes the evidence NaN, and is refused by weighted means
  and quantiles and by resampling.
* `sign = -1` is a folded draw: it belongs in sums (means, evidence) with its sign, and can be no
  member of an equally weighted sample.

Nothing here imports JAX or ArviZ; the Pareto fit lives beside ArviZ in `inference_data`.
"""

from .bridge import Bridge, bridge
from .estimates import Estimate, tail_ess, weighted_mean, weighted_quantile, weighted_sd
from .evidence import Evidence, allowing_for_missed, evidence
from .ranks import weighted_ranks
from .resampling import (
    IMHChains,
    imh_chains,
    resample_indices,
    systematic_indices,
    top_k_indices,
)
from .weights import (
    ESS,
    check_known,
    elbo,
    ess,
    finite_share,
    folded_fraction,
    is_finite_weight,
    pareto_k_threshold,
    scaled_weights,
    tail_excess,
)

__all__ = [
    "ESS",
    "Bridge",
    "Estimate",
    "Evidence",
    "IMHChains",
    "allowing_for_missed",
    "bridge",
    "check_known",
    "elbo",
    "ess",
    "evidence",
    "finite_share",
    "folded_fraction",
    "imh_chains",
    "is_finite_weight",
    "pareto_k_threshold",
    "resample_indices",
    "scaled_weights",
    "systematic_indices",
    "tail_ess",
    "tail_excess",
    "top_k_indices",
    "weighted_mean",
    "weighted_quantile",
    "weighted_ranks",
    "weighted_sd",
]
