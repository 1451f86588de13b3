"""BlackJAX's nested slice sampling."""

import jax
import jax.numpy as jnp
import numpy as np

from peers.base import Evidence, Outcome, Peer
from peers.posterior import Posterior

# The share of the evidence that the live points may still hold at the end.
_LOG_REST = -3.0
_VOLUMES = 200


def run(posterior: Posterior, budget: int, seed: int) -> Outcome:
    """`budget` live points, a tenth of them replaced at a time."""
    import blackjax
    from blackjax.ns.integrator import init_integrator, update_integrator
    from blackjax.ns.utils import finalise, log_weights

    key_prior, key_run, key_volumes = jax.random.split(jax.random.key(seed), 3)
    sampler = blackjax.nss(
        posterior.log_prior,
        posterior.log_likelihood,
        num_inner_steps=max(5, 2 * posterior.dim),
        num_delete=max(1, budget // 10),
    )
    state = sampler.init(posterior.prior_draws(key_prior, budget))
    rest = init_integrator(state.particles)

    @jax.jit
    def step(key, state, rest):
        new, info = sampler.step(key, state)
        evaluations = info.update_info.num_expansions + info.update_info.num_shrink
        rest = update_integrator(rest, new.particles, info.particles)
        return new, info._replace(update_info=None), rest, jnp.sum(evaluations)

    dead, densities = [], budget
    while not float(rest.logZ_live - rest.logZ) < _LOG_REST:
        state, info, rest, calls = step(jax.random.fold_in(key_run, len(dead)), state, rest)
        densities += int(calls)
        dead.append(jax.tree.map(np.asarray, info))
    every = finalise(state, dead, update_info=False)
    log_weight = np.asarray(log_weights(key_volumes, every, _VOLUMES), np.float64)
    log_weight = np.where(np.isnan(log_weight), -np.inf, log_weight)
    log_z = np.logaddexp.reduce(log_weight, axis=0)
    mean = np.logaddexp.reduce(log_weight, axis=1) - np.log(_VOLUMES)
    sites = posterior.constrain(np.asarray(every.particles.position))
    return Outcome(
        draws={name: value[None] for name, value in sites.items()},
        log_weights=mean,
        independent=True,
        densities=densities,
        evidence=Evidence(float(log_z.mean()), float(log_z.std(ddof=1))),
        extra={"iterations": len(dead)},
    )


PEERS = (
    Peer(
        "BlackJAX nested",
        run,
        (500, 1000, 4000),
        (1000,),
        ("blackjax",),
        asks_draws=False,
        x64=True,
        settings="nss, 2 d slice steps per point, a tenth replaced at a time; live points",
    ),
)
