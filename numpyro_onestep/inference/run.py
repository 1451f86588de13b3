"""What a run leaves behind: the trained sampler, then its draws, weighed, judged and arranged."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep.diagnostics import Checks, RescueChecks, Verdict, judge
from numpyro_onestep.flow import TraceLogDet
from numpyro_onestep.host_random import host_generator
from numpyro_onestep.importance import IMHChains, elbo, ess, evidence, imh_chains, resample_indices
from numpyro_onestep.inference.checking import measure, num_checked
from numpyro_onestep.inference.drawing import WeightedDraws, ready, weigh, weighted_draws
from numpyro_onestep.inference.trace import trace_log_weights
from numpyro_onestep.target import Target
from numpyro_onestep.threads import one_blas_thread
from numpyro_onestep.training import TrainedMixture, TrainingHistory

Posterior = Literal["imh", "resampled", "weighted"]
POSTERIORS = ("imh", "resampled", "weighted")

# Proposals per draw of the posterior group. A chain that keeps every state of its pass repeats a
# draw of 15 times the mean weight about 15 times in a row; of the states kept here, a quarter.
_PROPOSALS_PER_DRAW = 4
# Batches of draws at the most, where an effective number is asked for.
MAX_BATCHES = 16


@dataclasses.dataclass(frozen=True)
class Fit:
    """A sampler trained for a model with its arguments: all that drawing needs."""

    target: Target
    trained: TrainedMixture
    history: TrainingHistory
    chunk: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Rescue:
    """Draws of NUTS that stand in for the sampler's own, `n` of each.

    Attributes:
        x: in unconstrained coordinates, `(n, dim)`.
        samples: constrained sites and deterministics, `(n, *event)` each.
        checks: what the chains were judged by.
    """

    x: np.ndarray
    samples: dict[str, np.ndarray]
    checks: RescueChecks


@dataclasses.dataclass(frozen=True)
class Run:
    """A fit with its weighted draws and what they are worth.

    Attributes:
        fit: the sampler that the draws are of.
        draws: `S` raw draws in unconstrained coordinates.
        samples: constrained sites and deterministics of the raw draws, `(S, *event)` each.
        psis_log_weight: Pareto-smoothed log-weights, `(S,)`.
        trace_log_weight: published trace weights, `(S,)`, where they were asked for.
        indices: which draw of `pool_x` is at each place of the posterior group, `(chain, draw)`.
        draw_stats: statistics per posterior draw, `(chain, draw)` each.
        scalar_stats: statistics of the run.
        verdict: whether it can be believed.
        checks: what the verdict on the weighted draws is made of.
        moved_log_weight: of the points that the draws were moved to along the posterior, `(n,)`;
            NaN where unknown.
        rescue: where the posterior group comes from instead of the raw draws.
    """

    fit: Fit
    draws: WeightedDraws
    samples: dict[str, np.ndarray]
    psis_log_weight: np.ndarray
    trace_log_weight: np.ndarray | None
    indices: np.ndarray
    draw_stats: dict[str, np.ndarray]
    scalar_stats: dict[str, float]
    verdict: Verdict
    checks: Checks
    moved_log_weight: np.ndarray
    rescue: Rescue | None = None

    @property
    def pool_x(self) -> np.ndarray:
        """What the posterior group is made of, in unconstrained coordinates, `(n, dim)`."""
        return self.draws.x if self.rescue is None else self.rescue.x

    @property
    def pool_samples(self) -> dict[str, np.ndarray]:
        """The same as constrained sites and deterministics, `(n, *event)` each."""
        return self.samples if self.rescue is None else self.rescue.samples

    def posterior(self, index: np.ndarray) -> dict[str, jax.Array]:
        """What the posterior group has at `index: (*shape,)`, `(*shape, *event)` by site."""
        return {name: jnp.asarray(value[index]) for name, value in self.pool_samples.items()}


def num_evaluations(num_chains: int, num_samples: int, posterior: Posterior, chunk: int) -> int:
    """Draws and moves of points that follow training at the least, in chunks of so many draws."""
    return _num_proposals(num_chains, num_samples, posterior) + num_checked(chunk)


@one_blas_thread
def finish(
    fit: Fit,
    key_draw: jax.Array,
    key_check: jax.Array,
    num_steps: int,
    *,
    num_chains: int,
    num_samples: int,
    posterior: Posterior,
    trace_weights: TraceLogDet | None = None,
    target_ess: float = 0.0,
    deadline: float = math.inf,
) -> Run:
    """Draws, weighs, judges and arranges.

    Draws are added, as many again each time, until they are worth `target_ess`, and `deadline` (of
    `time.perf_counter`) or `MAX_BATCHES` end that. After the deadline the checks do what they must.
    """
    target, trained = fit.target, fit.trained
    num = _num_proposals(num_chains, num_samples, posterior)
    parts = ready(target, trained, num_steps)
    keys = [key_draw]
    draws, first = weighted_draws(parts, key_draw, num, fit.chunk)
    worth, shortfall = ess(draws.log_weight, draws.sign).count, ""
    while worth < target_ess and not shortfall:
        if not worth > 0.0:
            shortfall = "and none has a weight"
        elif len(keys) == MAX_BATCHES:
            shortfall = f"which {MAX_BATCHES} times the usual number of draws did not reach"
        elif time.perf_counter() > deadline:
            shortfall = "and sampling was stopped early (time limit)"
        else:
            # Chunks and components fold in small numbers.
            keys.append(jax.random.fold_in(key_draw, 2**30 + len(keys)))
            draws = draws.with_more(weighted_draws(parts, keys[-1], num, fit.chunk)[0])
            worth = ess(draws.log_weight, draws.sign).count
    weighed = weigh(draws)
    checks, moved_log_weight = measure(
        target,
        trained,
        fit.history,
        draws,
        weighed,
        first,
        key_check,
        num_steps=num_steps,
        deadline=deadline,
    )
    found = checks.one_step
    samples = target.constrain(draws.x)
    checks = dataclasses.replace(checks, undefined_sites=_undefined(samples, draws.log_weight))
    chains = _arrange(
        posterior,
        host_generator(key_check),
        draws,
        weighed.psis_log_weight,
        (num_chains, num_samples),
    )
    trace_log_weight = None
    trace_stats = {}
    if trace_weights is not None:
        trace_log_weight = np.concatenate(
            [
                trace_log_weights(parts, trace_weights, key, num, fit.chunk, num_steps=num_steps)
                for key in keys
            ]
        )
        trace_stats["trace_log_evidence"] = evidence(trace_log_weight).log_evidence
    shown = target.evidence != "refused" and not fit.history.diverged
    return Run(
        fit=fit,
        draws=draws,
        samples=samples,
        psis_log_weight=weighed.psis_log_weight,
        trace_log_weight=trace_log_weight,
        indices=chains.indices,
        draw_stats={
            "lp": draws.log_density[chains.indices],
            # Of draws without a density nobody asks.
            "log_q": draws.log_density[chains.indices] - draws.log_weight[chains.indices],
            "acceptance_rate": chains.acceptance_probability,
        },
        scalar_stats={
            "log_evidence": found.log_evidence if shown else math.nan,
            "log_evidence_se": found.se if shown else math.nan,
            "pareto_k": weighed.pareto_k,
            "ess_importance": worth,
            "elbo": elbo(draws.log_weight) if shown else math.nan,
            "missed_share": checks.missed_share or 0.0,
            "eubo": checks.coverage.eubo if shown and checks.coverage else math.nan,
            **_few_step_stats(checks, shown=shown),
            **trace_stats,
        },
        verdict=_with_shortfall(judge(checks), worth, target_ess, shortfall),
        checks=checks,
        moved_log_weight=moved_log_weight,
    )


def _num_proposals(num_chains: int, num_samples: int, posterior: Posterior) -> int:
    return num_chains * num_samples * (1 if posterior == "weighted" else _PROPOSALS_PER_DRAW)


def _undefined(samples: dict[str, np.ndarray], log_weight: np.ndarray) -> dict[str, float]:
    """Share of the draws that have a weight in which a site is NaN, for sites where any is."""
    known = np.isfinite(log_weight)
    found = {}
    for name, values in samples.items():
        if values.dtype.kind == "f" and known.any():
            undefined = np.isnan(values.reshape(len(values), -1)).any(1)
            found[name] = float(undefined[known].mean())
    return {name: share for name, share in found.items() if share > 0.0}


def _few_step_stats(checks: Checks, *, shown: bool) -> dict[str, float]:
    """What twice as many steps of the same sampler gave."""
    found, k, share = checks.few_step, checks.few_step_pareto_k, checks.few_step_ess_fraction
    assert found is not None and k is not None and share is not None
    return {
        "few_step_log_evidence": found.log_evidence if shown else math.nan,
        "few_step_log_evidence_se": found.se if shown else math.nan,
        "few_step_pareto_k": k,
        "few_step_ess_fraction": share,
    }


def _with_shortfall(verdict: Verdict, worth: float, wanted: float, why: str) -> Verdict:
    """The verdict with a note where the draws are worth less than was asked for."""
    if not why:
        return verdict
    note = f"The draws are worth {worth:.0f} independent ones; {wanted:.0f} were asked for, {why}."
    return dataclasses.replace(verdict, reasons=(*verdict.reasons, note))


def _arrange(
    posterior: Posterior,
    generator: np.random.Generator,
    draws: WeightedDraws,
    psis_log_weight: np.ndarray,
    shape: tuple[int, int],
) -> IMHChains:
    """Which raw draw stands at each place of the posterior group."""
    num_chains, num_samples = shape
    if posterior == "imh":
        return imh_chains(
            generator,
            draws.log_weight,
            draws.sign,
            num_chains=num_chains,
            num_samples=num_samples,
        )
    if posterior == "resampled":
        unfolded = np.where(draws.sign > 0, psis_log_weight, -np.inf)
        indices = resample_indices(generator, unfolded, num_chains * num_samples).reshape(shape)
    else:
        indices = np.arange(num_chains * num_samples).reshape(shape)
    return IMHChains(indices, np.ones(shape), np.ones(num_chains))
