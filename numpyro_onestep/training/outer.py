r"""Where points of training lie that are further out than draws of the base.

Few draws of a batch reach the tails of a map, from where the largest weights come. Outer points lie
further out in all directions, and half of them still further along the axes of funnels: there the
scales of other coordinates change, and a batch holds next to nothing of the neck. With
`z ~ N(0, I)` and the residual gradient `r = grad log gamma + z` in the coordinates of a Gaussian
fit, the axes are the leading eigenvectors of

    M = E[|r|^2 (z z^T - I)] / E[|r|^2],

which are zero where the size of the residual does not depend on z.
"""

from __future__ import annotations

import math

import numpy as np

from numpyro_onestep.exploration import Component
from numpyro_onestep.target import Target
from numpyro_onestep.training.draws import Draws

# Squared norms of outer points are that many standard deviations of those of the base larger on
# average. So far out are the extremes of thousands of draws.
_DISTANCE = 2.0
# Standard deviation along the axis of a funnel: one point in ten is where the extremes of thousands
# of draws are, and few are beyond. In fewer dimensions, where outer points are about as far out
# anyway, points along the axis are so at the expense of the bulk.
_AXIS_SCALE = 2.0
_MIN_AXIS_DIM = 16
_MAX_AXES = 4
# Least eigenvalue of an axis, in itself and in standard errors, by draws that did not choose it.
_MIN_STRENGTH, _MIN_ERRORS = 0.3, 3.0
# Residuals count up to this quantile of theirs: in a steep region a single one would decide.
_MAX_QUANTILE = 0.99


def may_have_axes(target: Target) -> bool:
    """Whether axes are looked for.

    Not for one component of several: on the way to another one its residuals grow too, where it
    ends.
    """
    return target.dim >= _MIN_AXIS_DIM and not isinstance(target, Component)


def outer_factors(axes: np.ndarray) -> np.ndarray:
    """Linear maps that take draws of the base to outer points, symmetric, `(2, dim, dim)`.

    The second one is for those along the axes, `(dim, num)`; the first one again without any.
    """
    dim = len(axes)
    # Squared norms have the mean dim and the variance 2 dim.
    further = math.sqrt(1.0 + _DISTANCE * math.sqrt(2.0 / dim))
    everywhere = further * np.eye(dim)
    along = everywhere + (_AXIS_SCALE - further) * axes @ axes.T
    return np.stack([everywhere, along])


def funnel_axes(of_fit: Draws) -> np.ndarray:
    """Orthonormal directions `(dim, num)` along which a posterior departs from its fit ever more.

    Half of the draws say which directions, the other half how strong each is: the largest
    eigenvalue of a sample is large wherever there are many dimensions.

    Args:
        of_fit: draws of the Gaussian fit itself, with gradients of the target.
    """
    base, score = (np.asarray(part, np.float64) for part in (of_fit.base, of_fit.score))
    dim = base.shape[1]
    residual = ((base + score) ** 2).sum(axis=1)
    known = np.isfinite(residual)
    if known.sum() < 4:
        return np.zeros((dim, 0))
    base, residual = base[known], residual[known]
    residual = np.minimum(residual, np.quantile(residual, _MAX_QUANTILE))
    share = residual / max(residual.mean(), np.finfo(float).tiny)
    half = len(base) // 2
    moment = (base[:half] * share[:half, None]).T @ base[:half] / half
    directions = np.linalg.eigh(moment)[1]
    values = share[half:, None] * ((base[half:] @ directions) ** 2 - 1.0)
    strength, se = values.mean(axis=0), values.std(axis=0) / math.sqrt(len(values))
    strongest = np.argsort(-strength)[:_MAX_AXES]
    least = np.maximum(_MIN_STRENGTH, _MIN_ERRORS * se)
    return directions[:, strongest[strength[strongest] > least[strongest]]]
