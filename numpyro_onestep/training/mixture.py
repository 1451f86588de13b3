r"""Training from a model to a sampler: exploration, then one component per separate mode.

A continuous map of a connected base cannot separate modes. The labelled sampler draws a label c
with probability `pi_c`, then `x ~ q_c`, and weighs the pair by

    w = gamma(x) rho(c|x) / (pi_c q_c(x)),

exact for every partition `rho` (see `exploration.partition`): the sum over labels gives back Z.
With one mode that is the sampler of `training.loop` itself.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import struct

from numpyro_onestep.compilation import cancel
from numpyro_onestep.exploration import (
    Centring,
    Component,
    Exploration,
    Partition,
    bhattacharyya,
    choose_centring,
    choose_conditional,
    explore,
)
from numpyro_onestep.preconditioner import Affine, GaussianFit
from numpyro_onestep.target import (
    GRADIENTS_PER_CONDITIONAL,
    Centredness,
    Conditional,
    Target,
    conditional,
    constant_centredness,
    in_double,
    recentred,
)
from numpyro_onestep.threads import one_blas_thread
from numpyro_onestep.training.ahead import compile_ahead
from numpyro_onestep.training.budget import Budget
from numpyro_onestep.training.enough import targets
from numpyro_onestep.training.journal import NO_JOURNAL, Journal
from numpyro_onestep.training.loop import (
    Oversight,
    TrainedSampler,
    TrainingHistory,
    train_component,
)
from numpyro_onestep.training.methods import Method

# Share of the draws that all components have in equal parts, so that none starves.
_COMMON_SHARE = 0.05
# Rounds at a falling rate of all components together, where each has one at least.
_MAX_ANNEALING = 24
# Share of the time after which nothing is explored again.
_EXPLORING = 0.25
# Gaussian fits that the checks look at, the best ones: each costs as much as a round.
_MAX_RIVALS = 8


@struct.dataclass
class TrainedMixture:
    """Samplers of all components with what else the exploration found.

    Attributes:
        components: one trained sampler per separate mode.
        log_share: log-probability of each label, `(num_components,)`.
        partition: of the target into components; None where there is one.
        rivals: Gaussian fits that training did not use: witnesses.
        particles: points of the posterior by tempering, `(n, dim)`, unconstrained: witnesses too.
        particle_log_density: of the target there, `(n,)`; -inf where they are none.
        centredness: of the coordinates that all this is in; None for those of the user's model.
        conditional: what is standardised in those; None for nothing.
        in_double: whether the log-density has to be computed in double precision; static.
    """

    components: tuple[TrainedSampler, ...]
    log_share: np.ndarray
    partition: Partition | None
    rivals: tuple[Affine, ...]
    particles: np.ndarray
    particle_log_density: np.ndarray
    centredness: Centredness | None
    conditional: Conditional | None
    in_double: bool = struct.field(pytree_node=False, default=False)

    @property
    def gradients_each(self) -> int:
        """Gradients of the model that one in the coordinates of the samplers takes."""
        return 1 if self.conditional is None else GRADIENTS_PER_CONDITIONAL

    def coordinates(self, target: Target) -> Target:
        """The user's target in the coordinates of the samplers, and in their precision."""
        target = conditional(recentred(target, self.centredness), self.conditional)
        return self.in_precision(target)

    def in_precision(self, target: Target) -> Target:
        """The user's target in the precision that the exploration found it to need."""
        return in_double(target) if self.in_double else target

    def target(self, target: Target, label: int) -> Target:
        """What the component with this label was trained for."""
        target = self.coordinates(target)
        if self.partition is None:
            return target
        return Component.of(target, self.partition, label)


@one_blas_thread
def train(
    target: Target,
    rng_key: jax.Array,
    method: Method,
    *,
    time_limit: float | None = None,
    num_after: int = 0,
    on_round: Callable[[int, TrainingHistory], None] = lambda _round, _history: None,
    journal: Journal = NO_JOURNAL,
    warm: TrainedMixture | None = None,
) -> tuple[TrainedMixture, TrainingHistory]:
    """Trains a sampler for the target.

    Ctrl-C and the time limit (seconds, checked between fits and rounds) end training with what
    there is, the latter so early that time is left for `num_after` draws. What is done is noted in
    the journal, and not done again if it is in there: the result is the same. A `warm` sampler,
    trained for other data, gives further starting points for the Gaussian fits, and each component
    the parameters and the step size of the one nearest to it.
    """
    began = time.perf_counter()
    deadline = np.inf if time_limit is None else began + time_limit
    key_explore, key_train, key_centring = (jax.random.fold_in(rng_key, i) for i in range(3))
    expected = None
    if warm is None:
        # For one mode, which most posteriors have.
        likely = constant_centredness(target, 1.0) if method.recentres else None
        expected = recentred(target, likely)
        compile_ahead(expected, method, key_train)
    if warm is not None:
        # What was trained is worth nothing in other coordinates.
        centring = Centring(warm.centredness)
    elif method.recentres:
        centring = journal.once(
            "centring", lambda: choose_centring(target, key_centring), is_done=lambda _: True
        )
    else:
        centring = Centring(None)
    given = None if warm is None else warm.conditional
    target = conditional(recentred(target, centring.centredness), given)
    if expected is not None and target.program is not expected.program:
        # What has been begun is of no use.
        cancel()
        compile_ahead(target, method, key_train)
    known = [component.affine.mean for component in warm.components] if warm else []

    def explored(name: str, target: Target, fitted: Sequence[GaussianFit]) -> Exploration:
        return journal.once(
            name,
            lambda: explore(
                target,
                key_explore,
                method.num_starts,
                method.max_modes,
                known=known,
                fitted=fitted,
                deadline=deadline,
            ),
            # Tempering that the deadline has cut short says nothing itself.
            is_done=lambda found: not found.stopped and time.perf_counter() < deadline,
        )

    found = explored("exploration", target, centring.fitted)
    num_gradients, num_densities = found.num_gradients, found.num_densities
    in_time = time.perf_counter() < began + _EXPLORING * (deadline - began)
    if warm is None and method.recentres and in_time and not found.in_double:
        given, num_more = choose_conditional(target, found)
        num_gradients += num_more
    if warm is None and given is not None:
        cancel()
        compile_ahead(conditional(target, given), method, key_train)
        try:
            found = explored("exploration again", conditional(target, given), ())
            target = conditional(target, given)
            num_gradients += found.num_gradients
            num_densities += found.num_densities
        except KeyboardInterrupt:
            # What there is serves without.
            given = None
            found.stopped = "interrupted"
    if found.in_double:
        target = in_double(target)
    history = TrainingHistory(
        gaussian_elbo=np.asarray(found.modes[0].elbo, float).tolist(),
        num_gradients=num_gradients + centring.num_gradients,
        num_densities=num_densities,
        undefined_share=found.undefined_share,
        stopped=found.stopped,
        diverged=found.diverged,
    )
    # More modes than can be enumerated would not be right with those few either: the checks say so.
    modes = found.modes[:1] if found.too_many else found.modes
    fits = tuple(fit.affine for fit in modes)
    partition = Partition.of(fits, [fit.bound for fit in modes]) if len(fits) > 1 else None
    if partition is not None:
        cancel()
        # The more there are, the less of the evidence hangs on the tails of each.
        num_annealing = min(method.num_annealing, max(_MAX_ANNEALING // len(fits), 1))
        method = dataclasses.replace(method, num_annealing=num_annealing)
    wanted = targets([fit.bound for fit in modes], method.target_ess)
    components, log_evidence = [], []
    for label, fit in enumerate(fits):
        ended = bool(history.stopped) or found.diverged
        name = f"component {label}"
        component, part = journal.once(
            name,
            functools.partial(
                train_component,
                target if partition is None else Component.of(target, partition, label),
                fit,
                jax.random.fold_in(key_train, label),
                method,
                Oversight(
                    # Draws for the label's probability, no training.
                    Budget(-np.inf if ended else deadline, num_after),
                    on_round,
                    journal.within(name),
                ),
                warm=_nearest(warm, fit),
                target_ess=wanted[label],
            ),
            is_done=functools.partial(_is_whole, method, journal.within(name)),
        )
        part.stopped = "" if ended else part.stopped
        history.extend(part)
        components.append(component)
        log_evidence.append(part.log_evidence[-1] if part.log_evidence else -np.inf)
    # A method with coordinates of its own makes no use of the fit.
    own = [component.affine for component in components]
    unused = [fit for fit in found.modes if not any(_equal(fit.affine, used) for used in own)]
    history.seconds = time.perf_counter() - began
    mixture = TrainedMixture(
        components=tuple(components),
        log_share=_log_share(np.array(log_evidence)),
        partition=partition,
        rivals=_best((*unused, *found.rivals)),
        particles=found.particles.points,
        # Particles that tempering has left on the way bear no witness.
        particle_log_density=np.where(
            found.particles.temperature == 1.0, found.particles.log_density, -np.inf
        ),
        centredness=centring.centredness,
        conditional=given,
        in_double=found.in_double,
    )
    return mixture, history


def _is_whole(
    method: Method, journal: Journal, trained: tuple[TrainedSampler, TrainingHistory]
) -> bool:
    """Whether nothing has cut the training of a component short, nor that of its teacher."""
    history = trained[1]
    # Where nothing had to be trained there is no teacher.
    taught = not method.teacher or not history.losses or journal.recall("teacher") is not None
    return taught and not history.stopped


def _nearest(warm: TrainedMixture | None, fit: Affine) -> TrainedSampler | None:
    if warm is None:
        return None
    return min(warm.components, key=lambda component: bhattacharyya(component.affine, fit))


def _equal(one: Affine, other: Affine) -> bool:
    """Whether two fits are the same, bent or not: those of a resumed training come from a file."""
    same_mean = np.array_equal(one.mean, other.mean)
    return same_mean and np.array_equal(one.factor, other.factor)


def _log_share(log_evidence: np.ndarray) -> np.ndarray:
    """Label probabilities: in proportion to the evidence, but for a common share."""
    num = len(log_evidence)
    evidence = np.exp(log_evidence - log_evidence.max()) if np.isfinite(log_evidence).any() else 1.0
    evidence = np.broadcast_to(np.nan_to_num(evidence), num)
    share = evidence / evidence.sum()
    return np.log((1.0 - _COMMON_SHARE) * share + _COMMON_SHARE / num)


def _best(fits: Sequence[GaussianFit]) -> tuple[Affine, ...]:
    order = sorted(fits, key=lambda fit: np.nan_to_num(fit.bound, nan=-np.inf))
    return tuple(fit.affine for fit in order[::-1][:_MAX_RIVALS])
