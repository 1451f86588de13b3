"""Agreement of the evidence from two independent halves of the draws."""

import numpy as np
from numpy.typing import ArrayLike

from ..importance import evidence
from ..importance.weights import check_weights


def independent_halves(log_weight: ArrayLike, sign: ArrayLike | None = None) -> float:
    """Difference of log Z between the first and the second half, in joint standard errors.

    `log_weight` (S,) and `sign` (S,) in the order in which the draws were made, so that a drift
    along the run shows. Draws are independent, so that a large |z| means standard errors that do
    not hold. Errors err on the safe side: z has an sd of 0.4 to 0.8, and |z| < 3.1 in 10,000
    repeats (log-normal weights of sd 0.5, 1.5, 2, Pareto weights of k = 0.5, 0.6; S = 1000 and
    4000). NaN where either half has no evidence.

    Raises:
        ValueError: for weights of the wrong shape or fewer than 4 draws.
    """
    log_w, signs = check_weights(log_weight, sign)
    if log_w.size < 4:
        raise ValueError(f"expected at least 4 draws to halve; got {log_w.size}")
    middle = log_w.size // 2
    first = evidence(log_w[:middle], signs[:middle])
    second = evidence(log_w[middle:], signs[middle:])
    if not np.isfinite(first.log_evidence) or not np.isfinite(second.log_evidence):
        return float("nan")
    difference = first.log_evidence - second.log_evidence
    joint_se = float(np.hypot(first.se, second.se))
    # Equal weights: no error, and no difference beyond rounding.
    return difference / joint_se if joint_se > 0 else 0.0
