"""When a sampler needs no training, and when it needs no more of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numpyro_onestep.training.draws import Draws
from numpyro_onestep.training.methods import Method

# Share of effective draws of a Gaussian fit that needs no training, and mean weight of its draws
# as a share of the largest one.
_NORMAL = 0.995
_LEAST_MEAN = 2.0 / 3.0


def is_normal(draws: Draws, method: Method) -> bool:
    """Whether draws of the Gaussian fit itself leave nothing to learn, in bulk and in tails.

    No weight may stand out: the share of effective draws does not see a tail that few draws reach.
    """
    log_weight = np.asarray(draws.log_weight, float)
    if not np.isfinite(log_weight).all():
        return False
    weight = np.exp(log_weight - log_weight.max())
    share = weight.mean() ** 2 / (weight**2).mean()
    return bool(share >= max(_NORMAL, method.target_ess) and weight.mean() > _LEAST_MEAN)


def serves(ess_fraction: Sequence[float], method: Method) -> bool:
    """Whether all draws so far are as good as a sampler of other data must give."""
    return min(ess_fraction) >= method.reuse_ess


def is_enough(ess_fraction: Sequence[float], method: Method) -> bool:
    """Whether the target is reached in two rounds running, or `patience` rounds brought no gain."""
    if len(ess_fraction) > 1 and min(ess_fraction[-2:]) >= method.target_ess:
        return True
    earlier, recent = ess_fraction[: -method.patience], ess_fraction[-method.patience :]
    return len(earlier) > 1 and max(recent) < max(earlier) + 0.01
