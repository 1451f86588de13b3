"""What a hard posterior with a known answer is, and how its answer is written down.

A truth is a log evidence and some points of distribution functions: `P(f(x) <= q) = p` for scalar
functions f of the sites. Probabilities exist where means do not, a missed mode moves them by its
weight, and their Monte Carlo error needs no moments.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Samples = Mapping[str, np.ndarray]
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Marginal:
    """Points of the distribution function of `value(samples)`: (n,), samples with axis n first."""

    name: str
    value: Callable[[Samples], np.ndarray]
    points: tuple[float, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Truth:
    """The log evidence and marginals of a posterior."""

    log_z: float
    marginals: tuple[Marginal, ...]


@dataclass(frozen=True)
class HardRow:
    """One posterior: `truth()` may take seconds of quadrature, `load()` gives keyword arguments.

    `why` says in a few words what makes it hard.
    """

    name: str
    model: Callable[..., None]
    truth: Callable[[], Truth]
    dim: int
    why: str
    load: Callable[[], dict[str, Any]] = field(default=dict)


def element(site: str, *index: int) -> Callable[[Samples], np.ndarray]:
    """One scalar of a site, as a function of the samples."""
    return lambda samples: np.asarray(samples[site], np.float64)[(slice(None), *index)]


def quantiles(name: str, value: Callable[[Samples], np.ndarray], distribution: Any) -> Marginal:
    """Five quantiles of a SciPy distribution."""
    points = tuple(float(distribution.ppf(level)) for level in LEVELS)
    return Marginal(name, value, points, LEVELS)


def share(
    name: str,
    value: Callable[[Samples], np.ndarray],
    points: Sequence[float],
    probabilities: Sequence[float],
) -> Marginal:
    """Given points of the distribution function, for instance the weights of modes."""
    return Marginal(name, value, tuple(points), tuple(probabilities))


def from_grid(
    name: str, value: Callable[[Samples], np.ndarray], grid: np.ndarray, density: np.ndarray
) -> Marginal:
    """Quantiles of an unnormalised density `(n,)` on a grid `(n,)`, by the trapezoidal rule."""
    pieces = 0.5 * (density[1:] + density[:-1]) * np.diff(grid)
    cdf = np.concatenate([[0.0], np.cumsum(pieces)]) / pieces.sum()
    points = tuple(float(np.interp(level, cdf, grid)) for level in LEVELS)
    return Marginal(name, value, points, LEVELS)


def log_integral(grid: np.ndarray, log_density: np.ndarray) -> float:
    """Log of the integral of `exp(log_density)` `(n,)` over the grid `(n,)`."""
    top = log_density.max()
    return float(top + np.log(np.trapezoid(np.exp(log_density - top), grid)))


def grid_posterior(
    grids: Mapping[str, np.ndarray],
    log_joint: np.ndarray,
    values: Mapping[str, Callable[[Samples], np.ndarray]],
) -> Truth:
    """Evidence and marginals of a log joint density tabulated on a product of grids.

    Args:
        grids: one ascending grid per axis of `log_joint`, by name and in that order.
        log_joint: log-density of parameters and data on the product of the grids.
        values: the function of the samples that belongs to each grid.
    """
    top = log_joint.max()
    density = np.exp(log_joint - top)
    axes = list(grids.values())
    marginals = []
    for i, name in enumerate(grids):
        left = density
        for j in reversed(range(len(axes))):
            if j != i:
                left = np.trapezoid(left, axes[j], axis=j)
        if name in values:
            marginals.append(from_grid(name, values[name], axes[i], left))
    return Truth(float(top + np.log(np.trapezoid(left, axes[-1]))), tuple(marginals))
