"""When a sampler needs no training, and when it needs no more of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import FitError, genpareto

from numpyro_onestep.training.draws import Draws
from numpyro_onestep.training.methods import Method

# Share of effective draws of a Gaussian fit that needs no training, and mean weight of its draws
# as a share of the largest one.
_NORMAL = 0.995
_LEAST_MEAN = 2.0 / 3.0
# The share for a bent fit in many dimensions.
_SUFFICIENT = 0.5
# A tail whose shape does not matter, by its share of the weight, as in the verdict.
_NEGLIGIBLE_TAIL = 1e-3
# Largest shapes of a tail: of an untrained fit two standard errors, of 2000 draws, below the
# verdict's limit: where in doubt, there is training. Of what was trained, which is judged twice,
# that limit.
_MAX_NORMAL_SHAPE, _MAX_TRAINED_SHAPE = 0.2, 0.5
# Gain of either measure that counts, over `patience` rounds.
_LEAST_GAIN = 0.01
# Root of the smallest share of the evidence that counts, and least target of a component.
_LEAST_ROOT = 1e-3
_LEAST_TARGET = 0.5


def is_normal(draws: Draws, method: Method) -> bool:
    """Whether draws of the Gaussian fit itself leave nothing to learn, in bulk and in tails.

    No weight may stand out, and the largest ones may not fall off too slowly: the share of
    effective draws does not see a tail that few draws reach.
    """
    if not np.isfinite(np.asarray(draws.log_weight)).all():
        return False
    weight = _relative_weight(draws)
    share = _effective_share(weight)
    is_flat = share >= max(_NORMAL, method.target_ess) and weight.mean() > _LEAST_MEAN
    return bool(is_flat and _has_light_tail(weight, _MAX_NORMAL_SHAPE))


def _relative_weight(draws: Draws) -> np.ndarray:
    """Weights as shares of the largest one, `(n,)`; 0 where unknown."""
    log_weight = np.asarray(draws.log_weight, float)
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    return np.exp(log_weight - log_weight.max())


def _effective_share(weight: np.ndarray) -> float:
    """Share of effective draws, by Kish."""
    return float(weight.mean() ** 2 / (weight**2).mean())


def _has_light_tail(weight: np.ndarray, max_shape: float) -> bool:
    """Whether a Pareto tail of the weights is immaterial, or of no larger shape than that."""
    ordered = np.sort(weight)
    num_tail = math.ceil(min(weight.size / 5, 3 * math.sqrt(weight.size)))
    excess = ordered[-num_tail:] - ordered[-min(num_tail + 1, weight.size)]
    if excess.sum() <= _NEGLIGIBLE_TAIL * weight.sum():
        return True
    try:
        with np.errstate(all="ignore"):
            shape, _, _ = genpareto.fit(excess, floc=0.0)
    except FitError:
        return False
    return bool(shape < max_shape)


def suffices(draws: Draws) -> bool:
    """Whether draws of a bent fit will do: in so many dimensions a round costs more than draws."""
    weight = _relative_weight(draws)
    share = _effective_share(weight)
    return bool(share >= _SUFFICIENT and _has_light_tail(weight, _MAX_TRAINED_SHAPE))


def serves(draws: Draws, ess_fraction: float, method: Method) -> bool:
    """Whether draws of a sampler of other data are good enough, in bulk and in tails."""
    if ess_fraction < method.reuse_ess:
        return False
    return _has_light_tail(_relative_weight(draws), _MAX_TRAINED_SHAPE)


def is_enough(
    ess_fraction: Sequence[float], affinity: Sequence[float], method: Method, target_ess: float
) -> bool:
    """Whether the target is reached in two rounds running, or `patience` rounds brought no gain.

    Where few draws are effective one weight decides over their share, and the affinity tells
    whether the sampler still comes closer; where most are, the share tells more.
    """
    if len(ess_fraction) > 1 and min(ess_fraction[-2:]) >= target_ess:
        return True
    return all(_stalls(measure, method.patience) for measure in (ess_fraction, affinity))


def _stalls(measure: Sequence[float], patience: int) -> bool:
    """Whether the last rounds are no better than those before them."""
    # The untrained sampler is none of them: features that are still random set it back at first.
    earlier, recent = measure[1:-patience], measure[-patience:]
    return bool(earlier) and max(recent) < max(earlier) + _LEAST_GAIN


def targets(log_evidence: Sequence[float], target_ess: float) -> list[float]:
    r"""The share of effective draws that each component must reach, for `target_ess` altogether.

    Draws of components that hold the shares `s_c` of the evidence, worth a share `e_c` of their
    number, are together worth `1 / (1 + sum_c s_c x_c)` of theirs, with `x_c = 1 / e_c - 1`. If
    rounds of training lessen `x_c` in inverse proportion, the fewest of them reach a total T with
    `x_c = (1 / T - 1) / (sqrt(s_c) sum_k sqrt(s_k))`, by Lagrange's multiplier: a small component
    needs less training, equal ones or a single one as much as before.
    """
    known = np.nan_to_num(np.asarray(log_evidence, float), nan=-1e300, neginf=-1e300)
    root = np.exp(0.5 * (known - known.max()))
    root = np.maximum(root / np.sqrt((root**2).sum()), _LEAST_ROOT)
    excess = (1.0 / target_ess - 1.0) / (root * root.sum())
    # Where draws are worth less than that, it is hardly known what they are worth.
    return np.maximum(1.0 / (1.0 + excess), min(target_ess, _LEAST_TARGET)).tolist()
