"""Comparison of models by their evidence, and predictions averaged over them.

* `reading`: evidences out of results, and which of them must not be compared;
* `table`: Bayes factors and model probabilities with their errors;
* `averaging`: predictions of several models, mixed by model probability.
"""

from numpyro_onestep.comparison.table import EvidenceComparison, compare_evidence

__all__ = ["EvidenceComparison", "compare_evidence"]
