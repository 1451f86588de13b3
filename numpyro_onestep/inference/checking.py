"""The measurements behind a verdict, put together from a trained sampler and its draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep.diagnostics import Checks, Coverage, coverage, independent_halves
from numpyro_onestep.importance import (
    Evidence,
    ess,
    evidence,
    finite_share,
    folded_fraction,
)
from numpyro_onestep.inference.drawing import WeightedDraws, weighted_draws
from numpyro_onestep.inference_data import psis
from numpyro_onestep.networks import Blocks
from numpyro_onestep.target import Target
from numpyro_onestep.training import (
    Draws,
    TrainedSampler,
    TrainingHistory,
    move,
)

# Transitions of the points that test the coverage: as many as it took to walk into a dropped neck.
_NUM_MOVES = 20


def measure(
    target: Target,
    sampler: TrainedSampler,
    history: TrainingHistory,
    draws: WeightedDraws,
    log_evidence: Evidence,
    pareto_k: float,
    first_chunk: Draws,
    rng_key: jax.Array,
    *,
    num_steps: int,
    resolution: float,
) -> Checks:
    """Everything that the verdict draws on; one-step means "in the user's number of steps"."""
    blocks = sampler.flow.steps(sampler.params, num_steps)
    key_more, key_move = (jax.random.fold_in(rng_key, i) for i in range(2))
    more_blocks = sampler.flow.steps(sampler.params, 2 * num_steps)
    chunk = len(first_chunk.base)
    more, _ = weighted_draws(target, sampler, more_blocks, key_more, chunk, chunk)
    _, more_k = psis(more.log_weight)
    moved, acceptance = _moved(target, sampler, blocks, first_chunk, key_move, resolution)
    return Checks(
        num_draws=len(draws.log_weight),
        finite_share=finite_share(draws.log_weight),
        ess_fraction=ess(draws.log_weight, draws.sign).fraction,
        pareto_k=pareto_k,
        folded_fraction=folded_fraction(draws.sign),
        one_step=log_evidence,
        coverage=moved,
        moved_acceptance=acceptance,
        few_step=evidence(more.log_weight, more.sign, pareto_k=more_k, resolution=resolution),
        few_step_pareto_k=more_k,
        halves_z=independent_halves(draws.log_weight, draws.sign),
        evidence_status=target.evidence,
        evidence_note=target.evidence_note,
        stopped_early=history.stopped,
        training_diverged=history.diverged,
    )


def _moved(
    target: Target,
    sampler: TrainedSampler,
    blocks: Blocks,
    draws: Draws,
    rng_key: jax.Array,
    resolution: float,
) -> tuple[Coverage | None, float]:
    """Coverage of the draws by points moved from them; None where no draw has a weight."""
    log_weight = np.asarray(draws.log_weight, np.float64)
    if not np.isfinite(log_weight).any():
        return None, 0.0
    moved = move(
        target,
        sampler.affine,
        blocks,
        draws,
        sampler.step_size,
        jnp.full((), jnp.inf, draws.log_density.dtype),
        jnp.asarray(_NUM_MOVES),
        rng_key,
    )
    found = coverage(
        log_weight,
        np.asarray(draws.sign, np.float64),
        np.asarray(moved.log_weight, np.float64),
        np.asarray(moved.usable),
        np.asarray(moved.ancestors),
        resolution=resolution,
    )
    return found, float(moved.acceptance)
