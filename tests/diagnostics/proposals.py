"""Proposals q and posteriors p whose weights are known, and what a run on them would measure."""

import numpy as np
from scipy import stats

from numpyro_onestep import diagnostics as diag
from numpyro_onestep.importance import ess, evidence, finite_share, systematic_indices
from numpyro_onestep.inference_data import psis


def lognormal(sd):
    """Samplers of log w under q and under p, for log-normal weights of mean one."""
    return (
        lambda rng, n: sd * rng.standard_normal(n) - sd**2 / 2,
        lambda rng, n: sd * rng.standard_normal(n) + sd**2 / 2,
    )


def pareto(k):
    """The same for Pareto weights of tail index 1/k."""
    return (
        lambda rng, n: k * rng.exponential(size=n) + np.log1p(-k),
        lambda rng, n: k / (1 - k) * rng.exponential(size=n) + np.log1p(-k),
    )


def gaussian(sd, dim):
    """Sampler of q = N(0, sd^2 I) and log w for p = N(0, I)."""
    return (
        lambda rng, n: sd * rng.standard_normal((n, dim)),
        lambda x: -0.5 * np.sum(x**2, axis=1) * (1 - sd**-2) + dim * np.log(sd),
    )


def truncated(mass, dim):
    """q = p = N(0, I) without the region x_1 > c that holds `mass`; log w = 13.8 inside it."""
    edge = stats.norm.isf(mass)

    def draw(rng, n):
        x = rng.standard_normal((n, dim))
        x[:, 0] = stats.norm.ppf(rng.random(n) * (1 - mass))
        return x

    return draw, lambda x: np.where(x[:, 0] < edge, np.log1p(-mass), -np.log(1e-6))


def move(rng, x, num_steps=5, step=None):
    """MALA steps that leave N(0, I) invariant."""
    h = 1.3 * x.shape[1] ** (-1 / 6) if step is None else step
    for _ in range(num_steps):
        there = x * (1 - h**2 / 2) + h * rng.standard_normal(x.shape)
        forth = np.sum((there - x * (1 - h**2 / 2)) ** 2, axis=1)
        back = np.sum((x - there * (1 - h**2 / 2)) ** 2, axis=1)
        log_ratio = 0.5 * np.sum(x**2 - there**2, axis=1) + (forth - back) / (2 * h**2)
        accept = np.log(rng.random(len(x))) < log_ratio
        x = np.where(accept[:, None], there, x)
    return x


def moved_coverage(rng, proposal, num_draws=4000, num_moved=1000, **moves):
    """Draws, resampled, moved and compared: log w of the draws, and their coverage."""
    draw, log_weight = proposal
    x = draw(rng, num_draws)
    log_w = log_weight(x)
    ancestors = systematic_indices(rng, log_w, num_moved)
    moved = log_weight(move(rng, x[ancestors], **moves))
    return log_w, diag.coverage(log_w, None, moved, None, ancestors)


def checks_of(log_w, coverage=None, **other):
    """The checks of a run whose draws have these weights, none folded."""
    k = psis(log_w)[1]
    return diag.Checks(
        num_draws=log_w.size,
        finite_share=finite_share(log_w),
        ess_fraction=ess(log_w).fraction,
        pareto_k=k,
        folded_fraction=0.0,
        one_step=evidence(log_w, pareto_k=k),
        coverage=coverage,
        **other,
    )
