"""NumPyro's NUTS with sequential and with vectorised chains; evidence by bridge sampling."""

from collections import namedtuple
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, NUTS
from numpyro.infer.hmc import HMCState
from numpyro.infer.util import unconstrain_fn

from peers.base import Evidence, Outcome, Peer
from peers.posterior import Posterior

CHAINS, WARMUP = 4, 1000
# Bridge sampling takes no more draws than this: its fits cost more than it gains.
_BRIDGE_DRAWS = 40_000

_Counted = namedtuple("_Counted", (*HMCState._fields, "gradients"))


class CountingNUTS(NUTS):
    """NUTS whose state carries the leapfrog steps so far, those of the warm-up too.

    The few gradients of the first guess of a step size are not among them.
    """

    def init(self, *args, **kwargs):
        """As NUTS, with a count of zero."""
        state = super().init(*args, **kwargs)
        return _Counted(*state, jnp.zeros_like(state.num_steps))

    def sample(self, state, model_args, model_kwargs):
        """As NUTS, and adds up."""
        new = super().sample(HMCState(*state[:-1]), model_args, model_kwargs)
        return _Counted(*new, state.gradients + new.num_steps)


def bridge_evidence(posterior: Posterior, x: np.ndarray, seed: int) -> Evidence:
    """Bridge sampling from draws `(n, dim)` in order of chains, against Gaussians fitted to them.

    The estimator and its error are those of `reference.bridge`.
    """
    import reference

    x = x[:: -(-len(x) // _BRIDGE_DRAWS)]
    calls = []

    def log_density(points: np.ndarray) -> np.ndarray:
        calls.append(len(points))
        return posterior.log_joints(points)

    log_z, se = reference.bridge(log_density, x, np.random.default_rng(seed))
    return Evidence(log_z, se, sum(calls))


def run(posterior: Posterior, budget: int, seed: int, *, chain_method: str) -> Outcome:
    """`budget` draws of four chains after 1000 of warm-up each."""
    mcmc = MCMC(
        CountingNUTS(posterior.model),
        num_warmup=WARMUP,
        num_samples=max(budget // CHAINS, 10),
        num_chains=CHAINS,
        chain_method=chain_method,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), **posterior.arguments)
    grouped = {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}

    def evidence() -> Evidence:
        sites = {k: v.reshape(-1, *v.shape[2:]) for k, v in grouped.items()}
        return bridge_evidence(posterior, unconstrained(posterior, sites), seed)

    return Outcome(
        draws=grouped,
        gradients=int(np.sum(mcmc.last_state.gradients)),
        evidence=evidence,
        extra={"divergences": int(mcmc.get_extra_fields()["diverging"].sum())},
    )


def unconstrained(posterior: Posterior, sites: dict[str, np.ndarray]) -> np.ndarray:
    """Flat vectors `(n, dim)` of constrained sites `(n, *event)`."""
    latent = {name: sites[name] for name in posterior.latent_sites}

    def one(values: dict) -> jax.Array:
        found = unconstrain_fn(posterior.model, (), posterior.arguments, values)
        return jax.flatten_util.ravel_pytree({name: found[name] for name in values})[0]

    return np.asarray(jax.jit(jax.vmap(one))(latent))


_SETTINGS = "4 chains, 1000 of warm-up each; evidence by bridge sampling"
PEERS = tuple(
    Peer(
        f"NUTS {chain_method}",
        partial(run, chain_method=chain_method),
        (1000, 4000, 20_000, 100_000),
        (4000, 100_000),
        settings=f"NumPyro, {_SETTINGS}",
    )
    for chain_method in ("sequential", "vectorized")
)
