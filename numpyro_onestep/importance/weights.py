"""Reading a set of signed log-weights: scale, shares, effective sample size."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

MAX_RELIABLE_K = 0.7


@dataclass(frozen=True)
class ESS:
    """Kish's effective sample size as a number of draws and as a fraction of all draws."""

    count: float
    fraction: float


def check_weights(
    log_weight: ArrayLike, sign: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return `log_weight` and `sign` as float64 arrays of shape (S,), S >= 1.

    A missing `sign` means that no draw is folded.

    Raises:
        ValueError: if the shapes differ, are not one-dimensional or empty, or a sign is not in
            {-1, 0, 1}.
    """
    log_w = np.asarray(log_weight, dtype=np.float64)
    if log_w.ndim != 1 or log_w.size == 0:
        raise ValueError(f"expected log weights of shape (S,) with S >= 1; got {log_w.shape}")
    if sign is None:
        return log_w, np.ones_like(log_w)
    signs = np.asarray(sign, dtype=np.float64)
    if signs.shape != log_w.shape:
        raise ValueError(f"expected one sign per log weight, {log_w.shape}; got {signs.shape}")
    # A determinant that is NaN has no sign; its log weight is NaN too and is counted there.
    if not np.all(np.isin(signs, (-1.0, 0.0, 1.0)) | ~is_finite_weight(log_w)):
        raise ValueError("expected signs in {-1, 0, 1}; got other values")
    return log_w, signs


def is_finite_weight(log_weight: np.ndarray) -> np.ndarray:
    """Mark the draws, (S,) bool, whose weight is a known number: zero (-inf) counts as known."""
    return ~(np.isnan(log_weight) | np.isposinf(log_weight))


def check_known(log_weight: np.ndarray) -> None:
    """Refuse weights that nobody knows, for estimates that have no way to say so.

    Raises:
        ValueError: for NaN and +inf, with their number.
    """
    if unknown := int(np.sum(~is_finite_weight(log_weight))):
        raise ValueError(
            "expected log weights that are finite or, for a weight of zero, -inf; got NaN or +inf"
            f" at {unknown} of {log_weight.size} draws, where the log-density is not known and"
            " neither is what is weighted by it"
        )


def scaled_weights(
    log_weight: ArrayLike, sign: ArrayLike | None = None
) -> tuple[np.ndarray, float]:
    """Signed weights divided by the largest: `(sigma_s w_s / exp(m), m)`, m = max log|w|.

    Unknown weights (NaN, +inf) are zero in the returned array (S,); callers that must not take
    them for zero ask :func:`finite_share`. Without any positive magnitude, m is -inf and every
    weight zero.
    """
    log_w, signs = check_weights(log_weight, sign)
    known = is_finite_weight(log_w) & (signs != 0)
    shift = float(np.max(log_w, where=known, initial=-np.inf))
    if shift == -np.inf:
        return np.zeros_like(log_w), shift
    magnitude = np.exp(np.where(known, log_w - shift, -np.inf))
    return np.where(known, signs, 0.0) * magnitude, shift


def finite_share(log_weight: ArrayLike) -> float:
    """Share of draws whose weight is a known number, in [0, 1]; NaN and +inf are not."""
    log_w, _ = check_weights(log_weight)
    return float(np.mean(is_finite_weight(log_w)))


def tail_excess(log_weight: ArrayLike) -> float:
    """Share of the total weight, in [0, 1], by which the largest weights exceed the rest.

    Of the M = min(S/5, 3 sqrt S) largest weights, those to which PSIS fits its tail, the part
    above the smallest of them. k-hat tells the shape of this part and nothing of its size: where
    nearly all weights are equal it describes a tail that no estimate depends on. 1 without usable
    weight.
    """
    weights = np.sort(np.abs(scaled_weights(log_weight)[0]))
    num_tail = int(np.ceil(min(weights.size / 5, 3 * np.sqrt(weights.size))))
    total = weights.sum()
    if not total > 0:
        return 1.0
    tail = weights[-num_tail:]
    return float((tail - tail[0]).sum() / total)


def folded_fraction(sign: ArrayLike) -> float:
    """Share of draws, in [0, 1], at which the map folds (negative determinant)."""
    signs = np.asarray(sign, dtype=np.float64)
    if signs.ndim != 1 or signs.size == 0:
        raise ValueError(f"expected signs of shape (S,) with S >= 1; got {signs.shape}")
    return float(np.mean(signs < 0))


def ess(log_weight: ArrayLike, sign: ArrayLike | None = None) -> ESS:
    """Kish's effective sample size `(sum sigma w)^2 / sum w^2` of signed weights.

    Folded draws lower it twice: they cancel in the sum and add to the squares. Unknown weights
    count as no draw in the numerator but stay in the denominator of the fraction. Without any
    positive total weight the effective sample size is 0, never 1.
    """
    weight, _ = scaled_weights(log_weight, sign)
    total = math.fsum(weight)
    count = float(total**2 / np.sum(weight**2)) if total > 0 else 0.0
    return ESS(count, count / weight.size)


def elbo(log_weight: ArrayLike) -> float:
    """Mean log-weight: a lower bound on log Z (in expectation) if the map has no folds.

    Unknown weights (NaN, +inf) are left out; a zero weight (-inf) makes the bound -inf, since
    dropping it would make the number no bound. NaN if no weight is known. With folds the number
    bounds nothing.
    """
    log_w, _ = check_weights(log_weight)
    known = log_w[is_finite_weight(log_w)]
    return float(known.mean()) if known.size else float("nan")


def pareto_k_threshold(num_draws: int) -> float:
    """Largest Pareto k-hat at which S draws still give a usable estimate: min(1 - 1/log10 S, 0.7).

    Source: Vehtari, Simpson, Gelman, Yao, Gabry (2024), "Pareto smoothed importance sampling",
    section 3.2.4. Below 2 draws nothing is usable and the threshold is -inf.
    """
    if num_draws < 2:
        return float("-inf")
    return float(min(1.0 - 1.0 / np.log10(num_draws), MAX_RELIABLE_K))
