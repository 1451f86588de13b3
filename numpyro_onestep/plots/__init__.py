"""Pictures of results and of their comparison, as figures outside of pyplot.

* `posterior`: the posterior of every scalar, the weights, and the verdict;
* `diagnostics`: what the verdict looks at: weights, moved points, one step against two;
* `training`: effective draws, evidence and gradients over the rounds;
* `evidence`: log Bayes factors and probabilities of several models;
* `ranks`: ranks of simulated truths;
* `marginals`: the same posterior from several samplers.
"""

from numpyro_onestep.plots.diagnostics import plot_diagnostics
from numpyro_onestep.plots.evidence import plot_evidence
from numpyro_onestep.plots.marginals import plot_marginals
from numpyro_onestep.plots.posterior import plot_posterior_and_weights
from numpyro_onestep.plots.ranks import plot_ranks
from numpyro_onestep.plots.training import plot_training

__all__ = [
    "plot_diagnostics",
    "plot_evidence",
    "plot_marginals",
    "plot_posterior_and_weights",
    "plot_ranks",
    "plot_training",
]
