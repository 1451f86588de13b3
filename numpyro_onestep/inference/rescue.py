"""Rescue: where the weighted draws fail, NUTS takes over in the coordinates of the map.

What the sampler learned is not lost with its weights: in its coordinates the posterior is nearly
normal, and chains move freely (see `transport`). They start from points that are independent of
each other, half of them tempered particles, half draws resampled by their weights; so regions that
single chains do not leave show in R-hat. Separate modes are left alone: chains cannot weigh them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep import flow as flows
from numpyro_onestep.diagnostics import (
    RescueChecks,
    failed_sentence,
    failures,
    not_rescued,
    rescued,
)
from numpyro_onestep.host_random import host_generator
from numpyro_onestep.importance import bridge, evidence, folded_fraction, top_k_indices
from numpyro_onestep.inference.drawing import Part, WeightedDraws, ready
from numpyro_onestep.inference.run import Rescue, Run
from numpyro_onestep.inference.witnesses import rival_share
from numpyro_onestep.inference_data import mean_ess, worst_convergence
from numpyro_onestep.target import users_points
from numpyro_onestep.training import draw
from numpyro_onestep.transport import Chains, Settings, Transport, Walkers

Fallback = Literal["nuts"]
FALLBACKS = ("nuts",)

# A mode of a tenth of the posterior is without a start in one of five rescues with this many
# chains, in two of three with four.
_MIN_CHAINS = 16
# States at first, of all chains together; doubled while they mix too slowly.
_MIN_STATES = 8000
_MAX_DOUBLINGS = 3
# Gradients of all attempts, as a multiple of what the run has taken until then, and per draw that
# was asked for.
_BUDGET, _BUDGET_PER_DRAW = 2, 32
# Draws of the Gaussian fit to bridge to.
_NUM_GAUSSIAN = 8000
# Starting points to choose from, as a multiple of the chains: some have no preimage.
_CANDIDATES = 4
# Nats above the largest weight of a state from which on a point counts as out of reach.
_MARGIN = 1.0


def rescue(
    run: Run, rng_key: jax.Array, *, num_chains: int, num_steps: int, deadline: float
) -> Run:
    """The run with NUTS draws in place of its own, where its verdict asks for it and they pass.

    Args:
        run: finished and judged.
        rng_key: for all of it.
        num_chains: of the posterior group.
        num_steps: steps of the sampler per draw.
        deadline: time of `time.perf_counter` from which on no block of transitions starts.
    """
    if run.verdict.label != "unreliable":
        return run
    reason = _hindrance(run, deadline)
    if reason:
        return dataclasses.replace(run, verdict=not_rescued(run.verdict, (reason,)))
    (part,) = ready(run.fit.target, run.fit.trained, num_steps)
    history, said = run.fit.history, []
    budget = _BUDGET * history.num_gradients + _BUDGET_PER_DRAW * run.indices.size
    limits = _Limits(deadline, history.num_gradients + budget)
    try:
        for i, transport in enumerate(_transports(run, part)):
            key = jax.random.fold_in(rng_key, i)
            attempt = _Attempt(run, part, transport, key)
            checks = attempt.run_chains(num_chains, limits)
            if checks is None:
                continue
            if not failures(checks):
                return attempt.result(checks, num_chains)
            said.append(failed_sentence(checks))
    except KeyboardInterrupt:
        said.append("A rescue by NUTS was interrupted.")
    except jax.errors.JaxRuntimeError as error:
        # Out of memory, or a callback of the model that raised: the run is there without it.
        said.append(f"A rescue by NUTS failed ({str(error).splitlines()[0]}).")
    said = said or ["A rescue by NUTS found no time, or nowhere to start."]
    return dataclasses.replace(run, verdict=not_rescued(run.verdict, tuple(said)))


def _hindrance(run: Run, deadline: float) -> str:
    """Why no rescue is tried; "" if one is."""
    history, num_modes = run.fit.history, len(run.fit.trained.components)
    if history.diverged:
        return "No rescue by NUTS was tried: there is no posterior of finite scale to sample."
    if num_modes > 1:
        return (
            f"No rescue by NUTS was tried: the posterior has {num_modes} separate modes, and chains"
            " that do not travel between them cannot tell their weights."
        )
    if history.stopped or time.perf_counter() > deadline:
        return (
            "No rescue by NUTS was tried: the run was stopped before"
            f" ({history.stopped or 'time limit'})."
        )
    return ""


def _transports(run: Run, part: Part) -> list[Transport]:
    """The map, where nothing speaks against its being a bijection; then the Gaussian fit alone."""
    affine = part.sampler.affine
    transports = [Transport(part.target, affine)]
    if isinstance(part.sampler.flow, flows.FlowMap) and folded_fraction(run.draws.sign) == 0.0:
        transports.insert(0, Transport(part.target, affine, part.steps))
    return transports


class _Limits(NamedTuple):
    """Time of `time.perf_counter`, and gradients of the whole run, not to go beyond."""

    deadline: float
    num_gradients: int


class _Attempt:
    """Chains in one transport, and what is measured on them."""

    def __init__(self, run: Run, part: Part, transport: Transport, rng_key: jax.Array) -> None:
        self._run = run
        self._transport = transport
        self._keys = [jax.random.fold_in(rng_key, i) for i in range(4)]
        steps = transport.steps
        self._part = dataclasses.replace(
            part, steps=flows.identity(part.steps) if steps is None else steps
        )
        self._log_weight = self._proposal_log_weight()
        self._chains: Chains | None = None
        self._points = run.draws

    def run_chains(self, num_chains: int, limits: _Limits) -> RescueChecks | None:
        """Starts them and lets them run until they mix, cannot, or must not go on.

        Returns None where there was nowhere to start, or no time.
        """
        # A multiple of the number asked for, whose chains are pieced together of them.
        num = num_chains * -(-_MIN_CHAINS // num_chains)
        start = self._starts(num)
        if start is None:
            return None
        history = self._run.fit.history
        walkers = Walkers(self._transport, start, self._keys[1], Settings())
        stopped = ""

        def may_go_on() -> bool:
            nonlocal stopped
            if time.perf_counter() > limits.deadline:
                stopped = "time limit"
            elif history.num_gradients + walkers.num_gradients > limits.num_gradients:
                stopped = f"{walkers.num_gradients:,} gradients are what the run may spend on them"
            return not stopped

        checks = None
        wanted = -(-max(_MIN_STATES, self._run.indices.size) // num)
        try:
            for _ in range(1 + _MAX_DOUBLINGS):
                walkers.advance(wanted - walkers.num_states, may_go_on)
                if not walkers.num_states:
                    return None
                checks = self._measure(walkers, stopped)
                if stopped or checks.mixes or checks.is_hopeless:
                    return checks
                wanted = 2 * walkers.num_states
        finally:
            history.num_gradients += walkers.num_gradients
        return checks

    def _starts(self, num: int) -> jax.Array | None:
        """Independent starting points in z, `(num, dim)`: tempered particles and draws in turns."""
        key_draw, key_host = (jax.random.fold_in(self._keys[0], i) for i in range(2))
        generator = host_generator(key_host)
        trained, part, transport = self._run.fit.trained, self._part, self._transport
        many = _CANDIDATES * num
        pools = []
        known = np.flatnonzero(np.isfinite(np.asarray(trained.particle_log_density)))
        if known.size:
            chosen = generator.permutation(known)[:many]
            pools.append(transport.inverse(trained.particles[chosen]))
        draws = draw(part.target, part.sampler.affine, part.steps, key_draw, self._run.fit.chunk)
        log_weight = np.asarray(draws.log_weight, np.float64)
        usable = np.isfinite(log_weight) & (np.asarray(draws.sign) > 0)
        if usable.any():
            log_weight = np.where(usable, log_weight, -np.inf)
            chosen = top_k_indices(generator, log_weight, min(many, int(usable.sum())))
            pools.append((draws.base[chosen], jnp.ones(len(chosen), bool)))
        found = []
        for z, ok in pools:
            ok &= jnp.isfinite(z).all(-1)
            ok &= jnp.isfinite(transport.log_weight(jnp.where(ok[:, None], z, 0.0)))
            found.append(z[np.flatnonzero(np.asarray(ok))])
        if sum(len(z) for z in found) < num:
            return None
        # In turns, as far as each pool goes.
        order = sorted((rank, place) for place, z in enumerate(found) for rank in range(len(z)))
        return jnp.stack([found[place][rank] for rank, place in order[:num]])

    def _proposal_log_weight(self) -> np.ndarray:
        """Log-weights of draws from the standard normal under the transport, `(S,)`."""
        if self._transport.steps is not None:
            return self._run.draws.log_weight
        mean = self._transport.affine.mean
        z = jax.random.normal(self._keys[2], (_NUM_GAUSSIAN, len(mean)), mean.dtype)
        return np.asarray(self._transport.log_weight(z), np.float64)

    def _measure(self, walkers: Walkers, stopped: str) -> RescueChecks:
        run, chains = self._run, walkers.chains()
        num, length, dim = chains.z.shape
        mapped = self._transport.forward(jnp.asarray(chains.z.reshape(-1, dim)))
        x, log_stretch = users_points(self._part.target, mapped[0])
        log_det, sign = (np.asarray(field, np.float64) for field in mapped[1:])
        log_det = log_det + np.asarray(log_stretch, np.float64)
        self._chains = chains
        self._points = WeightedDraws(
            x=np.asarray(x),
            log_density=chains.log_density.reshape(-1) - log_det,
            log_det=log_det,
            sign=sign,
            log_weight=chains.log_weight.reshape(-1),
        )
        scalars = [self._points.x, self._points.log_density[:, None]]
        scalars.append(self._points.log_weight[:, None])
        found = worst_convergence(np.concatenate(scalars, 1).reshape(num, length, -1))
        bridged = bridge(chains.log_weight, self._log_weight, mean_ess)
        draws = run.draws
        return RescueChecks(
            coordinates="gaussian" if self._transport.steps is None else "map",
            num_chains=num,
            num_draws=length,
            r_hat=found.r_hat,
            ess_bulk=found.ess_bulk,
            ess_tail=found.ess_tail,
            divergent_share=float(chains.diverging.mean()),
            folded_share=folded_fraction(self._points.sign),
            missed_share=self._missed_share(bridged.log_evidence),
            bridge=bridged,
            weighted=evidence(draws.log_weight, draws.sign, pareto_k=run.scalar_stats["pareto_k"]),
            num_gradients=walkers.num_gradients,
            stopped=stopped,
        )

    def _missed_share(self, log_evidence: float) -> float:
        """Largest share of the evidence in what the exploration found beyond all states."""
        trained, part = self._run.fit.trained, self._part
        rivals, _ = rival_share(
            part.target,
            trained,
            [part],
            self._points,
            log_evidence,
            self._run.fit.chunk,
            self._keys[3],
        )
        known = np.isfinite(np.asarray(trained.particle_log_density))
        if not known.any():
            return rivals
        z, ok = self._transport.inverse(jnp.asarray(trained.particles[known]))
        log_weight = np.asarray(self._transport.log_weight(z))
        reached = np.asarray(ok) & (log_weight <= self._points.log_weight.max() + _MARGIN)
        return max(rivals, float(np.mean(~reached)))

    def result(self, checks: RescueChecks, num_chains: int) -> Run:
        """The run with these draws, evenly spaced states of the chains, in its own shape."""
        run, points, chains = self._run, self._points, self._chains
        assert chains is not None
        shape = run.indices.shape
        length = chains.log_weight.size // num_chains
        kept = ((np.arange(shape[1]) + 1) * length) // shape[1] - 1
        places = np.arange(num_chains)[:, None] * length + kept

        def of(values: np.ndarray) -> np.ndarray:
            return np.asarray(values).reshape(-1)[places]

        shown = run.fit.target.evidence != "refused"
        # As for the weighted draws: what was found out of reach counts as one more standard error.
        se = math.hypot(checks.bridge.se, math.log1p(-checks.missed_share))
        x = points.x[places.reshape(-1)]
        found = checks.bridge
        return dataclasses.replace(
            run,
            rescue=Rescue(x, run.fit.target.constrain(x), checks),
            indices=np.arange(x.shape[0]).reshape(shape),
            draw_stats={
                "lp": of(points.log_density),
                "log_q": of(points.log_density - points.log_weight),
                "acceptance_rate": of(chains.accept_prob),
                "diverging": of(chains.diverging),
                "n_steps": of(chains.num_steps),
            },
            scalar_stats={
                **run.scalar_stats,
                "log_evidence": found.log_evidence if shown else math.nan,
                "log_evidence_se": se if shown else math.nan,
                "missed_share": checks.missed_share,
                "bridge_overlap": found.overlap,
                "nuts_r_hat": checks.r_hat,
                "nuts_ess_bulk": checks.ess_bulk,
                "nuts_ess_tail": checks.ess_tail,
            },
            verdict=rescued(run.verdict, checks),
        )
