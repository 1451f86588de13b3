r"""Power-scaling: how much the posterior depends on the prior and on the likelihood.

Raised to powers, `p(theta)^a p(y|theta)^b`, they give another posterior, whose draws are those of
the first with weights times `p(theta)^(a - 1) p(y|theta)^(b - 1)` (Kallioinen, Paananen, Bürkner,
Vehtari 2024, arXiv 2107.14054).
"""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr

from numpyro_onestep.diagnostics.limits import MIN_USABLE_ESS
from numpyro_onestep.importance import ess, pareto_k_threshold
from numpyro_onestep.inference.run import Run
from numpyro_onestep.inference_data import SAMPLE_DIMS, AxisNames, make_dataset, psis
from numpyro_onestep.target import log_prior_by_site, pointwise_log_likelihood


def log_prior_groups(run: Run) -> dict[str, xr.Dataset]:
    """The group `log_prior`: one variable per latent site, summed over its elements."""
    values = log_prior_by_site(run.fit.target, run.pool_x)
    by_draw = {name: value[run.indices] for name, value in values.items()}
    return {"log_prior": make_dataset(by_draw, SAMPLE_DIMS, AxisNames())}


def power_log_ratio(run: Run, prior: float, likelihood: float) -> np.ndarray:
    """What the raw draws' log-weights gain under these powers, `(n,)`; zero where both are one.

    Warns where the weights of these powers have no use.

    Raises:
        ValueError: for powers that are negative or not finite, and for models with discrete sites.
    """
    for name, power in (("prior_power", prior), ("likelihood_power", likelihood)):
        if not 0.0 <= power < np.inf:
            raise ValueError(f"expected {name} >= 0; got {power!r}")
    ratio = np.zeros(len(run.draws.x))
    if prior == likelihood == 1.0:
        return ratio
    target, x = run.fit.target, run.draws.x
    for value in log_prior_by_site(target, x).values():
        ratio += (prior - 1.0) * value
    if likelihood != 1.0:
        for value in pointwise_log_likelihood(target, x).values():
            ratio += (likelihood - 1.0) * value.reshape(len(ratio), -1).sum(1, dtype=np.float64)
    if min(prior, likelihood) > 0.0:
        # Zero stays zero; of a power of zero no weight of zero is left, and nobody knows it.
        ratio[np.isneginf(run.draws.log_weight)] = 0.0
    log_weight = run.draws.log_weight + ratio
    pareto_k, num = psis(log_weight)[1], ess(log_weight, run.draws.sign).count
    if pareto_k > pareto_k_threshold(len(ratio)) or num < MIN_USABLE_ESS:
        warnings.warn(
            f"prior_power={prior:g} and likelihood_power={likelihood:g} lead too far from the "
            f"posterior that was sampled: {num:.0f} effective draws, Pareto k-hat {pareto_k:.2f}.",
            stacklevel=3,  # the caller of `weighted_summary`
        )
    return ratio
