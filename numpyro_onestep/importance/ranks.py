"""Where a value stands among weighted draws."""

import numpy as np
from numpy.typing import ArrayLike

from .weights import ess, scaled_weights


def weighted_ranks(
    truth: ArrayLike,
    values: ArrayLike,
    log_weight: ArrayLike,
    sign: ArrayLike | None = None,
    *,
    generator: np.random.Generator | int,
) -> np.ndarray:
    r"""Fractional ranks in [0, 1] of `truth` (*event) among `values` (S, *event).

    With weights `w` that sum to one and are worth `n` draws (Kish), `U` uniform on [0, 1],

        u = (sum_s sigma_s w_s [v_s < t] + U (sum_s sigma_s w_s [v_s = t] + 1/n)) / (1 + 1/n):

    the truth counts as one more effective draw, ties are broken at random. With equal weights that
    is `(r + U) / (S + 1)`, `r` the rank of Talts et al. (2018, theorem 1), and exactly uniform
    where truth and draws have the same distribution.

    Unknown weights (NaN, +inf) count as zero, as everywhere in equally weighted draws: whether that
    is right is what ranks show. A rank is NaN where a draw that has weight has no value, or where
    no draw has a weight.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    weight, _ = scaled_weights(log_weight, sign)
    array = np.asarray(values)
    point = np.asarray(truth)
    if array.shape != (weight.size, *point.shape):
        raise ValueError(
            f"expected values of shape {(weight.size, *point.shape)}, one per weight and as the"
            f" truth; got {array.shape}"
        )
    size, total = ess(log_weight, sign).count, weight.sum()
    uniform = np.random.default_rng(generator).random(point.shape)
    if not total > 0.0 or not size > 0.0:
        return np.full(point.shape, np.nan)
    weight = weight / total
    below = np.tensordot(weight, array < point, axes=1)
    equal = np.tensordot(weight, array == point, axes=1)
    rank = (below + uniform * (equal + 1.0 / size)) / (1.0 + 1.0 / size)
    # Folds can push a sum of signed weights beyond its ends.
    rank = np.clip(rank, 0.0, 1.0)
    lost = np.isnan(point)
    if array.dtype.kind == "f":
        lost = lost | np.isnan(array[weight != 0.0]).any(axis=0)
    return np.where(lost, np.nan, rank)
