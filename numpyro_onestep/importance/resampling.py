r"""Equally weighted draws from importance weights.

Independence Metropolis-Hastings (IMH) moves from state x to an i.i.d. proposal x' with
probability `min(1, w(x')/w(x))`; it leaves the posterior invariant for any finite weight.

**Start of a chain.** A chain started at its first proposal starts from the proposal distribution
and has to forget it. Here each chain runs around a *circle* over its own proposals instead
(circular coupling, R. Neal 1999): position i holds the state after proposal i, and position 0
follows the last one. The largest weight of the circle is accepted from every state, so the state
there is certain and everything after it is one ordinary pass. Hence every draw, the first
included, is what IMH reaches after a full pass of fresh i.i.d. proposals from an arbitrary start:
by symmetry no position is closer to the start than another. With w bounded by B Z, its law is
within `(1 - 1/B)^(N-1)` of the posterior in total variation. A chain whose largest weight
dominates sits there for a long stretch, and r-hat and ESS show it.

**Folds.** A negative or zero weight is never accepted: no equally weighted sample can hold a
draw of negative weight. With folds the chains target the positive part of the signed measure,
and the folded share bounds what that leaves out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .weights import check_known, check_weights, is_finite_weight


@dataclass(frozen=True)
class IMHChains:
    """Chains of independence Metropolis-Hastings over given proposals.

    Attributes:
        indices: (num_chains, num_samples) int, which proposal each draw is.
        acceptance_probability: (num_chains, num_samples), `min(1, w'/w)` of the proposal made at
            each draw (averaged over the proposals between two kept draws).
        acceptance_rate: (num_chains,), share of the proposals that were accepted.
    """

    indices: np.ndarray
    acceptance_probability: np.ndarray
    acceptance_rate: np.ndarray


def imh_chains(
    generator: np.random.Generator | int,
    log_weight: ArrayLike,
    sign: ArrayLike | None = None,
    *,
    num_chains: int,
    num_samples: int,
) -> IMHChains:
    """Run `num_chains` IMH chains, each over its own contiguous share of the S proposals.

    With S = num_chains * num_samples each draw follows one proposal; with more, the chains use
    all of their S // num_chains proposals and keep evenly spaced states. Proposals of zero,
    negative or unknown (NaN, +inf) weight are rejected. A chain without a single positive weight
    stays at its first proposal with acceptance 0: nothing is lost, and r-hat cannot miss it.

    Args:
        generator: NumPy generator, or a seed for one.
        log_weight: (S,) log|w| of i.i.d. proposals, in any order independent of their values.
        sign: (S,) in {-1, 0, 1}; all +1 if missing.
        num_chains: number of chains, at least 1.
        num_samples: kept draws per chain, at least 1.

    Raises:
        ValueError: for non-positive counts or fewer proposals than draws.
    """
    log_w, signs = check_weights(log_weight, sign)
    _check_count("num_chains", num_chains)
    _check_count("num_samples", num_samples)
    if log_w.size < num_chains * num_samples:
        raise ValueError(
            f"expected at least num_chains * num_samples = {num_chains * num_samples} proposals; "
            f"got {log_w.size}"
        )
    rng = np.random.default_rng(generator)
    length = log_w.size // num_chains
    used = slice(0, length * num_chains)
    allowed = is_finite_weight(log_w) & (signs > 0)
    shares = np.where(allowed, log_w, -np.inf)[used].reshape(num_chains, length)
    # log of a uniform on (0, 1]: 1 - u keeps log(0) out.
    log_uniform = np.log1p(-rng.random((num_chains, length)))

    # Draw j is the state after proposal ends[j]; its block of proposals starts after ends[j-1].
    ends = ((np.arange(num_samples) + 1) * length) // num_samples - 1
    starts = np.concatenate([[0], ends[:-1] + 1])
    indices = np.empty((num_chains, num_samples), dtype=np.int64)
    probability = np.empty((num_chains, num_samples))
    rate = np.empty(num_chains)
    for chain in range(num_chains):
        state, accept_probability = _circular_pass(shares[chain], log_uniform[chain])
        accepted = (state == np.arange(length)) & np.isfinite(shares[chain])
        indices[chain] = chain * length + state[ends]
        probability[chain] = np.add.reduceat(accept_probability, starts) / (ends - starts + 1)
        rate[chain] = accepted.mean()
    return IMHChains(indices, probability, rate)


def _circular_pass(log_w: np.ndarray, log_uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States (N,) around the circle and the acceptance probability (N,) at each position."""
    length = log_w.size
    top = int(np.argmax(log_w))
    if log_w[top] == -np.inf:
        return np.zeros(length, dtype=np.int64), np.zeros(length)
    order = np.roll(np.arange(length), -top)
    # Proposal i is accepted from state c iff log u_i <= log w_i - log w_c. Python floats: the
    # recursion is sequential, and array overhead per step would be ten times its cost.
    bars = (log_w - log_uniform)[order].tolist()
    values = log_w[order].tolist()
    positions: list[int] = []
    current, current_value = 0, values[0]
    for step, (bar, value) in enumerate(zip(bars, values, strict=True)):
        if current_value <= bar:
            current, current_value = step, value
        positions.append(current)
    state = np.empty(length, dtype=np.int64)
    state[order] = order[np.asarray(positions)]
    previous = np.roll(state, 1)
    return state, np.exp(np.minimum(log_w - log_w[previous], 0.0))


def resample_indices(
    generator: np.random.Generator | int,
    log_weight: ArrayLike,
    num: int,
    *,
    replace: bool = True,
) -> np.ndarray:
    """Draw `num` indices (num,) in random order with chances proportional to the weights.

    `log_weight` (S,) are Pareto-smoothed log-weights, -inf for draws that must not appear (folded
    ones). With replacement: systematic resampling, each draw appears floor or ceil of
    `num * w` times. Without: every draw at most once, see :func:`top_k_indices`.

    Raises:
        ValueError: for NaN or +inf weights, no positive weight, a `num` below 1, or (without
            replacement) more draws than positive weights.
    """
    rng = np.random.default_rng(generator)
    if not replace:
        return top_k_indices(rng, log_weight, num)
    # Systematic indices come sorted: a chain cut out of them would be a slice of the proposals.
    return rng.permutation(systematic_indices(rng, log_weight, num))


def systematic_indices(
    generator: np.random.Generator | int, log_weight: ArrayLike, num: int
) -> np.ndarray:
    """Systematic resampling with replacement: sorted indices (num,); unbiased counts.

    Raises: as :func:`resample_indices`.
    """
    rng = np.random.default_rng(generator)
    probability = _probabilities(log_weight, num)
    cumulative = np.cumsum(probability)
    points = (np.arange(num) + rng.random()) / num * cumulative[-1]
    # side="right" skips draws of zero weight; the clip catches a point rounded up to the total.
    last = int(np.flatnonzero(probability)[-1])
    return np.minimum(np.searchsorted(cumulative, points, side="right"), last)


def top_k_indices(
    generator: np.random.Generator | int, log_weight: ArrayLike, num: int
) -> np.ndarray:
    """Sample without replacement, successive draws proportional to the weights left: (num,).

    The `num` largest of log w + Gumbel noise, largest first. Its inclusion chances are flatter
    than the weights: exact only for num << ESS, in exchange for no repeated draw.

    Raises: as :func:`resample_indices`.
    """
    rng = np.random.default_rng(generator)
    probability = _probabilities(log_weight, num)
    available = int(np.count_nonzero(probability))
    if num > available:
        raise ValueError(f"expected at least {num} draws of positive weight; got {available}")
    with np.errstate(divide="ignore"):
        keys = np.log(probability) + rng.gumbel(size=probability.size)
    return np.argsort(-keys, kind="stable")[:num]


def _probabilities(log_weight: ArrayLike, num: int) -> np.ndarray:
    log_w, _ = check_weights(log_weight)
    _check_count("num", num)
    check_known(log_w)
    top = log_w.max()
    if top == -np.inf:
        raise ValueError("expected at least one positive weight; got none")
    weight = np.exp(log_w - top)
    return weight / weight.sum()


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"expected {name} >= 1; got {value}")
