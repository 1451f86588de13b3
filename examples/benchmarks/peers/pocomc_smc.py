"""pocoMC: sequential Monte Carlo preconditioned by normalising flows, in PyTorch."""

import jax
import numpy as np

from peers.base import Evidence, Outcome, Peer
from peers.posterior import Posterior, in_chunks

_CHUNK = 256


class _Prior:
    """The model's prior in unconstrained coordinates, as pocoMC asks for it."""

    def __init__(self, posterior: Posterior, seed: int) -> None:
        self.dim = posterior.dim
        self.bounds = np.full((self.dim, 2), [-np.inf, np.inf])
        self._posterior = posterior
        self._density = jax.jit(jax.vmap(posterior.log_prior))
        self._key, self._calls = jax.random.key(seed), 0

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(in_chunks(self._density, x, _CHUNK), np.float64)

    def rvs(self, size: int = 1) -> np.ndarray:
        self._calls += 1
        key = jax.random.fold_in(self._key, self._calls)
        return np.array(self._posterior.prior_draws(key, size), np.float64)


def run(posterior: Posterior, budget: int, seed: int) -> Outcome:
    """`budget` effective particles, half of them active."""
    import pocomc

    density = jax.jit(jax.vmap(lambda x: posterior.log_parts(x)[1]))
    calls = [0]

    def log_likelihood(x: np.ndarray) -> np.ndarray:
        calls[0] += len(x)
        return np.asarray(in_chunks(density, np.atleast_2d(x), _CHUNK), np.float64)

    sampler = pocomc.Sampler(
        prior=_Prior(posterior, seed),
        likelihood=log_likelihood,
        n_effective=budget,
        n_active=budget // 2,
        vectorize=True,
        random_state=seed,
    )
    sampler.run(progress=False)
    x, log_weights, *_ = sampler.posterior(return_logw=True)
    sites = posterior.constrain(x)
    log_z, se = sampler.evidence()
    return Outcome(
        draws={name: value[None] for name, value in sites.items()},
        log_weights=np.asarray(log_weights),
        independent=None,
        densities=calls[0],
        evidence=Evidence(float(log_z), None if se is None else float(se)),
    )


PEERS = (
    Peer(
        "pocoMC",
        run,
        (512, 2048),
        (512,),
        ("pocomc", "torch"),
        asks_draws=False,
        x64=True,
        settings="defaults; effective particles",
        install="GPL: pip install pocomc torch, on your own decision",
    ),
)
