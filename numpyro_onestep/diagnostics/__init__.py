"""Whether a run can be believed: checks in, verdict with reasons out.

Pure functions over NumPy float64 arrays and numbers. :func:`coverage` and
:func:`independent_halves` measure, :class:`Checks` holds what was measured, and :func:`judge`
applies the table in `rules` to it; `rescue` judges the chains that replace draws which failed.
`uniformity` looks at ranks of simulated data sets.
"""

from .checks import Checks
from .coverage import Coverage, coverage
from .halves import independent_halves
from .rescue import RescueChecks, failed_sentence, failures, not_rescued, rescued
from .uniformity import Band, uniformity_band, uniformity_p_value
from .verdict import LABELS, Verdict, judge

__all__ = [
    "LABELS",
    "Band",
    "Checks",
    "Coverage",
    "RescueChecks",
    "Verdict",
    "coverage",
    "failed_sentence",
    "failures",
    "independent_halves",
    "judge",
    "not_rescued",
    "rescued",
    "uniformity_band",
    "uniformity_p_value",
]
