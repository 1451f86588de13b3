r"""The evidence from both sides at once: a bridge between posterior draws and a proposal's.

With weights `w = gamma / q` at draws of the proposal q and at draws of the posterior p,

    Z = E_q[w h(w)] / E_p[h(w)],    h(w) = 1 / (s_1 w + s_2 Z),

holds for every Z inside h, and the iteration that puts the estimate there has the least error
(Meng and Wong, 1996). `s_1` is the share of the effective posterior draws among all. Where q lacks
a part of p, h is small there and the posterior draws make up for it; where the two hardly meet,
there is nothing to bridge, and `overlap` says so.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .weights import check_weights

_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Bridge:
    """Evidence by bridge sampling; natural logarithms.

    Attributes:
        log_evidence: NaN if a weight is unknown or nothing meets.
        se: its standard error; inf where the value is NaN.
        overlap: integral of `p q / (s_1 p + s_2 q)`, in [0, 1]: 1 where both are one density.
        effective: independent draws that the posterior draws are worth here.
    """

    log_evidence: float
    se: float
    overlap: float
    effective: float


def bridge(
    log_weight_posterior: ArrayLike,
    log_weight_proposal: ArrayLike,
    effective: Callable[[np.ndarray], float],
) -> Bridge:
    """Bridge sampling between chains `(c, n)` and independent draws `(S,)`.

    The error is the relative mean square error of Fruehwirth-Schnatter (2004, equation 15): both
    sides' variances, that of the chains over their effective number.

    Args:
        log_weight_posterior: `log gamma - log q` at posterior draws, `(c, n)`.
        log_weight_proposal: the same at draws of q, `(S,)`; all unfolded, since a folded map has no
            density at hand.
        effective: effective sample size of the mean of values `(c, n)`.

    Raises:
        ValueError: for arrays of other shapes.
    """
    inside = np.asarray(log_weight_posterior, np.float64)
    if inside.ndim != 2 or inside.size == 0:
        raise ValueError(f"expected log weights of chains (c, n); got shape {inside.shape}")
    outside, _ = check_weights(log_weight_proposal)
    unknown = np.isnan(outside) | np.isposinf(outside)
    if unknown.any() or not np.isfinite(inside).all() or not np.isfinite(outside).any():
        return Bridge(float("nan"), float("inf"), 0.0, 0.0)
    num = min(max(effective(inside), 1.0), float(inside.size))
    log_share = np.log([num / (num + outside.size), outside.size / (num + outside.size)])
    log_z = float(np.median(inside))
    for _ in range(_MAX_ITERATIONS):
        above, below = _terms(outside, inside, log_z, log_share)
        step = _log_mean(above) - _log_mean(below)
        log_z += step
        if not abs(step) > _TOLERANCE:
            break
    above, below = _terms(outside, inside, log_z, log_share)
    overlap = float(np.exp(_log_mean(above)))
    if not (np.isfinite(log_z) and overlap > 0.0):
        return Bridge(float("nan"), float("inf"), 0.0, num)
    ratio_above, ratio_below = np.exp(above - _log_mean(above)), np.exp(below - _log_mean(below))
    num_below = min(max(effective(ratio_below), 1.0), float(inside.size))
    # Constant terms have no autocorrelation to speak of.
    num_below = num_below if np.isfinite(num_below) else float(inside.size)
    square = ratio_above.var() / outside.size + ratio_below.var() / num_below
    return Bridge(log_z, float(np.sqrt(square)), min(overlap, 1.0), num)


def _terms(
    outside: np.ndarray, inside: np.ndarray, log_z: float, log_share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of `p / (s_1 p + s_2 q)` at the proposal's draws, of `q / (...)` at the others."""
    log_p_q, log_p_p = outside - log_z, inside - log_z
    return (
        log_p_q - np.logaddexp(log_share[0] + log_p_q, log_share[1]),
        -np.logaddexp(log_share[0] + log_p_p, log_share[1]),
    )


def _log_mean(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.mean(np.exp(values - top))))
