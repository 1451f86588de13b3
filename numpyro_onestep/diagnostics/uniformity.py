r"""Whether numbers in [0, 1] are uniform, with simultaneous bands for their distribution function.

The empirical distribution function of `N` uniform numbers at the points `z_i = i/N` is binomial at
each of them. The statistic is the smallest tail probability of any,

    gamma = 2 min_i min( P(B_i <= N F(z_i)), P(B_i >= N F(z_i)) ),   B_i ~ Binomial(N, z_i),

whose distribution under uniformity is simulated. The curve leaves the band of probability `prob`
somewhere exactly if gamma is below its `1 - prob` quantile (Saeilynoja, Buerkner and Vehtari 2022,
"Graphical test for discrete uniformity and its applications in goodness-of-fit evaluation and
multiple sample comparison", algorithm 1).
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

_NUM_TRIALS = 10_000
# Points of the distribution function: more than that many add nothing that is seen.
_MAX_POINTS = 500


@dataclass(frozen=True)
class Band:
    """Simultaneous band for a distribution function.

    Attributes:
        points: where it is evaluated, in (0, 1), `(k,)`.
        lower: smallest share of numbers at or below each point, `(k,)`.
        upper: largest, `(k,)`.
    """

    points: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def uniformity_p_value(numbers: ArrayLike) -> float:
    """Probability that uniform numbers stray at one point as far as these do, `(n,)` of them.

    NaN with fewer than two numbers.

    Raises:
        ValueError: for numbers outside [0, 1], or NaN.
    """
    values = np.asarray(numbers, np.float64)
    if values.ndim != 1 or not np.all((values >= 0.0) & (values <= 1.0)):
        raise ValueError(f"expected numbers in [0, 1], shape (n,); got {values}")
    if values.size < 2:
        return float("nan")
    found = _statistics(values[None])[0]
    trials = _trials(values.size)
    return float((1 + np.searchsorted(trials, found, side="right")) / (1 + trials.size))


def uniformity_band(num: int, prob: float = 0.95) -> Band:
    """What the distribution function of `num` >= 2 uniform numbers stays within.

    Raises:
        ValueError: for fewer numbers, or a `prob` outside (0, 1).
    """
    if num < 2:
        raise ValueError(f"expected at least 2 numbers; got {num}")
    if not 0.0 < prob < 1.0:
        raise ValueError(f"expected a probability in (0, 1); got {prob}")
    tail = 0.5 * float(np.quantile(_trials(num), 1.0 - prob))
    points = _points(num)
    lower, upper = stats.binom.ppf(tail, num, points), stats.binom.isf(tail, num, points)
    return Band(points, lower / num, upper / num)


def _points(num: int) -> np.ndarray:
    size = min(num, _MAX_POINTS)
    return np.arange(1, size) / size


def _statistics(numbers: np.ndarray) -> np.ndarray:
    """Gamma of each row of `(m, n)` numbers."""
    num = numbers.shape[1]
    points = _points(num)
    counts = np.stack([np.searchsorted(np.sort(row), points, side="right") for row in numbers])
    at = np.arange(points.size)
    lower, upper = _tails(num)
    return 2.0 * np.minimum(lower[counts, at], upper[counts, at]).min(axis=1)


@functools.lru_cache(maxsize=2)
def _tails(num: int) -> tuple[np.ndarray, np.ndarray]:
    """P(B <= c) and P(B >= c) by count c and point, `(num + 1, k)` each."""
    counts, points = np.arange(num + 1)[:, None], _points(num)
    return stats.binom.cdf(counts, num, points), stats.binom.sf(counts - 1, num, points)


@functools.lru_cache(maxsize=8)
def _trials(num: int) -> np.ndarray:
    """Gammas of uniform numbers, in order: the same ones each time."""
    generator = np.random.default_rng(0)
    size = max(1, 2**20 // num)
    drawn = [
        _statistics(generator.random((min(size, _NUM_TRIALS - start), num)))
        for start in range(0, _NUM_TRIALS, size)
    ]
    return np.sort(np.concatenate(drawn))
