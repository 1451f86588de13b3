"""The table of rules behind the verdict. A new check is one row.

Rows of one name run from strict to lenient, and only the first that applies speaks. Tests are
written as `not (value within limit)`, so that a NaN never passes. The limits, with their reasons,
are in `limits`.
"""

from .base import Rule
from .coverage import COVERAGE_RULES
from .evidence import EVIDENCE_RULES
from .weights import TRAINING_RULES, WEIGHT_RULES

RULES: tuple[Rule, ...] = (*TRAINING_RULES, *WEIGHT_RULES, *EVIDENCE_RULES, *COVERAGE_RULES)

__all__ = ["RULES", "Rule"]
