"""Counts that are nearly Poisson's: a density that single precision cannot compute everywhere."""

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

COUNTS = np.tile([3, 1, 4, 2, 3, 5, 2, 3, 1, 4], 6)


def counts(y):
    """Nearly Poisson: any large concentration will do."""
    mean = numpyro.sample("mean", dist.LogNormal(1.0, 1.0))
    concentration = numpyro.sample("concentration", dist.HalfCauchy(5.0))
    numpyro.sample("y", dist.NegativeBinomial2(mean, concentration), obs=y)


def evidence_of_counts():
    """By quadrature over the logarithms, in double precision."""
    log_mean, log_size = np.linspace(-1.0, 3.0, 201), np.linspace(-6.0, 16.0, 1101)
    mean, size = np.exp(log_mean)[:, None], np.exp(log_size)
    log_joint = stats.norm(1.0, 1.0).logpdf(log_mean)[:, None]
    log_joint = log_joint + stats.halfcauchy(scale=5.0).logpdf(size) + log_size
    for y, times in zip(*np.unique(COUNTS, return_counts=True), strict=True):
        log_joint = log_joint + times * stats.nbinom.logpmf(y, size, size / (size + mean))
    return float(np.log(np.exp(log_joint).sum() * (4.0 / 200) * (22.0 / 1100)))
