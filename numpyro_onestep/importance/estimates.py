"""Self-normalised estimates of posterior means, sds and quantiles with Monte Carlo errors.

`E[f] = sum sigma w f / sum sigma w`: exact in the limit with signed weights, folds included.
Errors are delta-method errors over the i.i.d. draws; like those of the evidence without its tail
correction they are too small where k-hat exceeds 0.7.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .weights import check_known, check_weights, scaled_weights


@dataclass(frozen=True)
class Estimate:
    """An estimate and its Monte Carlo standard error, both of the event shape."""

    value: np.ndarray
    mcse: np.ndarray


def weighted_mean(
    values: ArrayLike, log_weight: ArrayLike, sign: ArrayLike | None = None
) -> Estimate:
    """Posterior mean of `values` (S, *event) under weights (S,). NaN without positive weight.

    Raises:
        ValueError: if `values` does not start with the axis of the draws, or if a weight is unknown
            (NaN, +inf): its draw would be left out in silence.
    """
    array, probability = _normalise(values, log_weight, sign)
    mean = np.tensordot(probability, array, axes=1)
    return Estimate(mean, _influence_se(probability, array - mean))


def weighted_sd(
    values: ArrayLike, log_weight: ArrayLike, sign: ArrayLike | None = None
) -> Estimate:
    """Posterior standard deviation of `values` (S, *event) under weights (S,).

    NaN where folds make the variance estimate negative. Raises: as :func:`weighted_mean`.
    """
    array, probability = _normalise(values, log_weight, sign)
    centred_square = (array - np.tensordot(probability, array, axes=1)) ** 2
    variance = np.tensordot(probability, centred_square, axes=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.sqrt(np.where(variance >= 0, variance, np.nan))
        mcse = _influence_se(probability, centred_square - variance) / (2 * sd)
    # A constant has sd 0 without error, not 0/0.
    return Estimate(sd, np.where(sd == 0, 0.0, mcse))


def weighted_quantile(
    values: ArrayLike,
    prob: float,
    log_weight: ArrayLike,
    sign: ArrayLike | None = None,
) -> Estimate:
    """Posterior quantile of `values` (S, *event) at `prob` in (0, 1) under weights (S,).

    The smallest value at which the weighted distribution function reaches `prob`; its error is
    half the width of the quantiles at `prob` -+ one standard error of the distribution function
    there (Woodruff 1952).

    Raises:
        ValueError: for `prob` outside (0, 1), or as :func:`weighted_mean`.
    """
    if not 0.0 < prob < 1.0:
        raise ValueError(f"expected a probability in (0, 1); got {prob}")
    array, probability = _normalise(values, log_weight, sign)
    columns = array.reshape(array.shape[0], -1)
    value, mcse = np.empty(columns.shape[1]), np.empty(columns.shape[1])
    for j, column in enumerate(columns.T):
        value[j], mcse[j] = _quantile(column, probability, prob)
    return Estimate(value.reshape(array.shape[1:]), mcse.reshape(array.shape[1:]))


def _quantile(column: np.ndarray, probability: np.ndarray, prob: float) -> tuple[float, float]:
    if np.any(np.isnan(probability)) or np.any(np.isnan(column[probability != 0])):
        return float("nan"), float("nan")
    order = np.argsort(column, kind="stable")
    # Signed weights make the distribution function dip; its running maximum is monotone again.
    cdf = np.maximum.accumulate(np.cumsum(probability[order]))

    def at(p: float) -> float:
        return float(column[order[min(int(np.searchsorted(cdf, p)), column.size - 1)]])

    centre = at(prob)
    se = float(_influence_se(probability, (column <= centre) - prob))
    low, high = at(prob - se), at(min(prob + se, float(cdf[-1])))
    return centre, (high - low) / 2


def _normalise(
    values: ArrayLike, log_weight: ArrayLike, sign: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Values as float64 and signed weights that sum to one; draws of weight zero are silenced."""
    log_w, signs = check_weights(log_weight, sign)
    check_known(log_w)
    weight, _ = scaled_weights(log_w, signs)
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 1 or array.shape[0] != weight.size:
        raise ValueError(f"expected values of shape ({weight.size}, ...); got {array.shape}")
    total = math.fsum(weight)
    probability = weight / total if total > 0 else np.full_like(weight, np.nan)
    # 0 * NaN is NaN: a draw without weight must not spoil the sum by an overflowed value.
    silent = (probability == 0).reshape((-1,) + (1,) * (array.ndim - 1))
    return np.where(silent & ~np.isfinite(array), 0.0, array), probability


def _influence_se(probability: np.ndarray, influence: np.ndarray) -> np.ndarray:
    """Standard error sqrt(sum p^2 h^2), h the influence (S, *event) of each draw."""
    return np.sqrt(np.tensordot(probability**2, influence**2, axes=1))


def tail_ess(
    values: np.ndarray, log_weight: ArrayLike, sign: ArrayLike | None = None
) -> np.ndarray:
    r"""Independent draws that the weighted ones are worth in the tails of each quantity.

    With `p` the weighted share of the draws below an edge, `sum w^2 (1[x <= edge] - p)^2` of the
    normalised weights is the variance of that share (the delta method of `weighted_mean`), and
    `p (1 - p) / n` that of n independent draws. The edges are about the 5 % and 95 % quantiles, as
    in the tail ESS of MCMC (Vehtari et al. 2021); the smaller n is returned. Kish's number does
    not know where the large weights are.

    Args:
        values: `(S, dim)`.
        log_weight: natural logarithms, `(S,)`; unknown ones count as zero.
        sign: of the weights, `(S,)`; all positive by default.

    Returns:
        `(dim,)`; 0 without a positive total weight, inf for a quantity that does not vary.
    """
    weight, _ = scaled_weights(log_weight, sign)
    total = weight.sum()
    if not total > 0:
        return np.zeros(values.shape[1])
    cumulative = np.cumsum(np.maximum(weight, 0.0))
    ticks = (np.arange(_NUM_FOR_EDGES) + 0.5) / _NUM_FOR_EDGES * cumulative[-1]
    chosen = np.minimum(np.searchsorted(cumulative, ticks), len(weight) - 1)
    edges = np.quantile(values[chosen], _TAILS, axis=0)
    probability = weight / total
    found = np.full(edges.shape, np.inf)
    for j, column in enumerate(values.T):
        for i, edge in enumerate(edges[:, j]):
            below = column <= edge
            share = probability @ below
            se = float(_influence_se(probability, below - share))
            if se > 0.0 and 0.0 < share < 1.0:
                found[i, j] = share * (1.0 - share) / se**2
    return found.min(axis=0)


_TAILS = (0.05, 0.95)
# Draws resampled by their weights, for edges near those quantiles.
_NUM_FOR_EDGES = 2000
