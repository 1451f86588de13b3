"""The measurements behind a verdict, put together from a trained sampler and its draws."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep import flow as flows
from numpyro_onestep.diagnostics import Checks, Coverage, coverage, independent_halves
from numpyro_onestep.importance import (
    ess,
    evidence,
    finite_share,
    folded_fraction,
    tail_excess,
)
from numpyro_onestep.inference.drawing import Weighed, WeightedDraws, weigh, weighted_draws
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import Target
from numpyro_onestep.training import (
    Draws,
    MovedPoints,
    TrainedSampler,
    TrainingHistory,
    draw,
    log_weight_at,
    move,
)

# Nats above the largest weight of a draw from which on a point counts as out of reach.
_MARGIN = 1.0
# Transitions of the points that test the coverage: as many as it took to walk into a dropped neck.
_NUM_MOVES = 20
# Transitions of the points of a rival, which start where the sampler was not.
_NUM_RIVAL_MOVES = 5


def measure(
    target: Target,
    sampler: TrainedSampler,
    history: TrainingHistory,
    draws: WeightedDraws,
    weighed: Weighed,
    first_chunk: Draws,
    rng_key: jax.Array,
    *,
    num_steps: int,
) -> Checks:
    """Everything that the verdict draws on; one-step means "in the user's number of steps".

    Adds the gradients that drawing and checking took to the history.
    """
    blocks = sampler.steps(target, num_steps)
    key_more, key_move, key_rivals = (jax.random.fold_in(rng_key, i) for i in range(3))
    more_blocks = sampler.steps(target, 2 * num_steps)
    chunk = len(first_chunk.base)
    more, _ = weighted_draws(target, sampler, more_blocks, key_more, chunk, chunk)
    more_weighed = weigh(more, sampler)
    moved, acceptance = _moved(
        target, sampler, blocks, first_chunk, key_move, weighed.evidence.resolution
    )
    num_own = -(-len(draws.log_weight) // chunk) * chunk
    num_rival = len(sampler.rivals) * chunk * (1 + _NUM_RIVAL_MOVES)
    history.num_gradients += num_own + chunk * (1 + _NUM_MOVES) + num_rival
    return Checks(
        num_draws=len(draws.log_weight),
        finite_share=finite_share(draws.log_weight),
        ess_fraction=ess(draws.log_weight, draws.sign).fraction,
        pareto_k=weighed.pareto_k,
        tail_excess=tail_excess(draws.log_weight),
        folded_fraction=folded_fraction(draws.sign),
        one_step=weighed.evidence,
        coverage=moved,
        moved_acceptance=acceptance,
        few_step=more_weighed.evidence,
        few_step_pareto_k=more_weighed.pareto_k,
        missed_share=_rival_share(
            target, sampler, blocks, draws, weighed.evidence.log_evidence_known, chunk, key_rivals
        ),
        halves_z=independent_halves(draws.log_weight, draws.sign),
        evidence_status=target.evidence,
        evidence_note=target.evidence_note,
        stopped_early=history.stopped,
        training_diverged=history.diverged,
    )


def _moved(
    target: Target,
    sampler: TrainedSampler,
    blocks: Any,
    draws: Draws,
    rng_key: jax.Array,
    resolution: float,
) -> tuple[Coverage | None, float]:
    """Coverage of the draws by points moved from them; None where no draw has a weight."""
    log_weight = np.asarray(draws.log_weight, np.float64)
    if not np.isfinite(log_weight).any():
        return None, 0.0
    moved = _move(target, sampler.affine, draws, sampler.step_size, _NUM_MOVES, rng_key)
    moved_log_weight, usable = log_weight_at(blocks, moved.points, moved.log_density)
    found = coverage(
        log_weight,
        np.asarray(draws.sign, np.float64),
        np.asarray(moved_log_weight, np.float64),
        np.asarray(usable),
        np.asarray(moved.ancestors),
        resolution=resolution,
    )
    return found, float(moved.acceptance)


def _move(
    target: Target,
    affine: Affine,
    draws: Draws,
    step_size: jax.Array,
    num_moves: int,
    rng_key: jax.Array,
) -> MovedPoints:
    no_limit = jnp.full((), jnp.inf, draws.log_density.dtype)
    return move(target, affine, draws, step_size, no_limit, jnp.asarray(num_moves), rng_key)


def _rival_share(
    target: Target,
    sampler: TrainedSampler,
    blocks: Any,
    draws: WeightedDraws,
    log_evidence: float,
    chunk: int,
    rng_key: jax.Array,
) -> float:
    """Largest share of the evidence that a Gaussian fit from another start puts out of reach.

    The fit draws, weighs and moves points of its own. Those whose weight under the sampler exceeds
    that of every draw (beyond `_MARGIN`), or has no preimage, are out of reach; the fit's own
    importance estimate of the evidence, times their share, is what the sampler misses there.
    """
    identity = flows.identity(blocks)
    largest = np.max(draws.log_weight, initial=-np.inf, where=np.isfinite(draws.log_weight))
    worst = 0.0
    for i, rival in enumerate(sampler.rivals):
        key_draw, key_move = (jax.random.fold_in(rng_key, 2 * i + j) for j in range(2))
        own = draw(target, rival, identity, key_draw, chunk)
        own_weight = np.asarray(own.log_weight, np.float64)
        if not np.isfinite(own_weight).any():
            continue
        moved = _move(target, rival, own, sampler.step_size, _NUM_RIVAL_MOVES, key_move)
        points = sampler.affine.inverse(rival.forward(moved.points))
        log_density = moved.log_density - rival.log_det + sampler.affine.log_det
        log_weight, usable = (np.asarray(a) for a in log_weight_at(blocks, points, log_density))
        beyond = np.mean(~usable | (log_weight > largest + _MARGIN))
        # Finite draws only: a rival is a witness, not a judge, and may be a poor one.
        local = evidence(np.where(np.isfinite(own_weight), own_weight, -np.inf)).log_evidence
        missed = local + np.log(max(beyond, 1e-300))
        worst = max(worst, float(np.exp(missed - np.logaddexp(missed, log_evidence))))
    return worst
