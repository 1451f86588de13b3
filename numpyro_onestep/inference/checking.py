"""The measurements behind a verdict, put together from a trained sampler and its draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np

from numpyro_onestep.diagnostics import Checks, Coverage, coverage, independent_halves
from numpyro_onestep.host_random import host_generator
from numpyro_onestep.importance import (
    allowing_for_missed,
    ess,
    finite_share,
    folded_fraction,
    scaled_weights,
    systematic_indices,
    tail_ess,
    tail_excess,
)
from numpyro_onestep.inference.drawing import (
    Part,
    Weighed,
    WeightedDraws,
    counts,
    ready,
    weigh,
    weighted_draws,
)
from numpyro_onestep.inference.witnesses import (
    NUM_MOVES,
    by_component,
    joined,
    least_walking,
    num_walking,
    particle_share,
    rival_share,
    walk_from,
)
from numpyro_onestep.target import Target, rounding_errors
from numpyro_onestep.training import (
    Draws,
    TrainedMixture,
    TrainingHistory,
)

# Draws of the largest weights, whose log-density is looked at in double precision.
_NUM_LARGEST = 256
# Walks of the points that draws are moved to, of particles, and of rivals' points.
_NUM_WALKS = 3


def num_checked(chunk: int) -> int:
    """Draws and moves of points that a verdict takes at the least, in chunks of so many draws."""
    return 2 * chunk + _NUM_WALKS * NUM_MOVES * least_walking(chunk)


def measure(
    target: Target,
    mixture: TrainedMixture,
    history: TrainingHistory,
    draws: WeightedDraws,
    weighed: Weighed,
    first: list[Draws],
    rng_key: jax.Array,
    *,
    num_steps: int,
    deadline: float = math.inf,
) -> tuple[Checks, np.ndarray]:
    """Everything that the verdict draws on; one-step means "in the user's number of steps".

    Adds the gradients that drawing and checking took to the history. Beside the checks it returns
    the log-weights of the moved points that their coverage comes from, `(n,)`, for pictures.

    Args:
        target: the model.
        mixture: the sampler.
        history: of its training.
        draws: of the sampler.
        weighed: what their weights say.
        first: the first chunk of each component's draws.
        rng_key: for all of it.
        num_steps: steps of the sampler per draw.
        deadline: of `time.perf_counter`, from which on no point walks longer than it must.
    """
    parts = ready(target, mixture, num_steps)
    key_more, key_move, key_rivals, key_particles = (
        jax.random.fold_in(rng_key, i) for i in range(4)
    )
    chunk = len(first[0].base)
    more, _ = weighted_draws(ready(target, mixture, 2 * num_steps), key_more, chunk, chunk)
    more_weighed = weigh(more)
    num = num_walking(mixture, chunk)
    moved, acceptance, moved_log_weight = _moved(
        parts, first, num, key_move, weighed.evidence.resolution
    )
    log_evidence = weighed.evidence.log_evidence_known
    by_particles = particle_share(
        mixture, parts, first, draws, log_evidence, num, key_particles, deadline=deadline
    )
    by_rivals = rival_share(
        mixture.coordinates(target), mixture, parts, draws, log_evidence, num, key_rivals
    )
    missed_share = max(by_particles.share, by_rivals.share)
    num_own = -(-len(draws.log_weight) // chunk) * chunk
    # The draws in more steps, and the walks of the points moved.
    num_checked = len(parts) * (chunk + num * NUM_MOVES)
    history.num_gradients += (
        num_own + num_checked + by_particles.num_gradients + by_rivals.num_gradients
    )
    in_tails = tail_ess(draws.x, draws.log_weight, draws.sign)
    checks = Checks(
        num_draws=len(draws.log_weight),
        finite_share=finite_share(draws.log_weight),
        ess_fraction=ess(draws.log_weight, draws.sign).fraction,
        pareto_k=weighed.pareto_k,
        tail_excess=tail_excess(draws.log_weight),
        tail_ess=float(in_tails.min()),
        tail_site=target.site_at(int(in_tails.argmin())),
        folded_fraction=folded_fraction(draws.sign),
        one_step=allowing_for_missed(weighed.evidence, missed_share),
        coverage=moved,
        moved_acceptance=acceptance,
        few_step=more_weighed.evidence,
        few_step_pareto_k=more_weighed.pareto_k,
        few_step_ess_fraction=ess(more.log_weight, more.sign).fraction,
        missed_share=missed_share,
        halves_z=independent_halves(draws.log_weight, draws.sign),
        evidence_status=target.evidence,
        evidence_note=target.evidence_note,
        undefined_share=history.undefined_share,
        imprecise_share=imprecise_share(target, draws),
        in_double=mixture.in_double,
        stopped_early=history.stopped,
        training_diverged=history.diverged,
    )
    return checks, moved_log_weight


def imprecise_share(target: Target, draws: WeightedDraws) -> float:
    """Share of the weight of the draws, in [0, 1], that single precision has made up.

    A weight that is off by e nats, up or down, is wrong by a share of at least `1 - exp(-e)`.
    """
    weight = np.abs(scaled_weights(draws.log_weight)[0])
    largest = np.argsort(-weight)[:_NUM_LARGEST]
    error = rounding_errors(target, draws.x[largest], draws.log_density[largest])
    return float(weight[largest] @ -np.expm1(-error) / max(weight.sum(), 1.0))


def _moved(
    parts: Sequence[Part],
    first: Sequence[Draws],
    num: int,
    rng_key: jax.Array,
    resolution: float,
) -> tuple[Coverage | None, float, np.ndarray]:
    """Coverage of the draws by `num` points moved from them; None where no draw has a weight.

    Then the acceptance of the moves and the log-weights of the points, NaN where unknown.

    As many draws as one chunk holds, their labels in the sampler's shares, are resampled together.
    Each is moved along the target of its own component: the pairs of label and point follow the
    posterior of pairs.
    """
    chunk = len(first[0].base)
    sizes = counts(parts, rng_key, chunk)
    label = np.repeat(np.arange(len(parts)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])

    def pooled(fields: Sequence[jax.Array | np.ndarray]) -> np.ndarray:
        kept = [np.asarray(f, np.float64)[:size] for f, size in zip(fields, sizes, strict=True)]
        return np.concatenate(kept)

    log_share = np.array([part.log_share for part in parts])
    log_weight = pooled([draws.log_weight for draws in first]) - log_share[label]
    sign = pooled([draws.sign for draws in first])
    usable = np.isfinite(log_weight) & (sign > 0)
    usable &= np.isfinite(pooled([draws.score for draws in first])).all(-1)
    if not usable.any():
        return None, 0.0, np.zeros(0)
    ancestors = systematic_indices(
        host_generator(rng_key), np.where(usable, log_weight, -np.inf), num
    )
    chosen = label[ancestors]
    origin = place[ancestors]
    walks = []
    for c, part, rows in by_component(parts, chosen, num):
        start = jax.tree.map(lambda leaf, at=origin[rows]: np.asarray(leaf)[at], first[c])
        walk, _ = walk_from(part, start, rows, jax.random.fold_in(rng_key, c))
        walks.append(walk)
    walk = joined(walks, chosen)
    found = coverage(
        log_weight,
        sign,
        walk.log_weight,
        walk.known,
        ancestors[walk.row],
        component=label,
        resolution=resolution,
    )
    return found, walk.acceptance, np.where(walk.known, walk.log_weight, np.nan)
