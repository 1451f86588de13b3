"""Whether a run can be believed: checks in, verdict with reasons out.

Pure functions over NumPy float64 arrays and numbers. :func:`coverage` and
:func:`independent_halves` measure, :class:`Checks` holds what was measured, and :func:`judge`
applies the table in `rules` to it. `uniformity` looks at ranks of simulated data sets.
"""

from .checks import Checks
from .coverage import Coverage, coverage
from .halves import independent_halves
from .uniformity import Band, uniformity_band, uniformity_p_value
from .verdict import Verdict, judge

__all__ = [
    "Band",
    "Checks",
    "Coverage",
    "Verdict",
    "coverage",
    "independent_halves",
    "judge",
    "uniformity_band",
    "uniformity_p_value",
]
