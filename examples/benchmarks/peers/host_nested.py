"""nautilus and dynesty: nested samplers in NumPy, in the prior's unit cube."""

import jax
import jax.numpy as jnp
import numpy as np

from peers.base import Evidence, Outcome, Peer
from peers.posterior import Posterior


def _cube_likelihood(posterior: Posterior):
    """Compiled log-likelihood at points of the unit cube `(n, dim)`: `(n,)`."""

    def one(u: jax.Array) -> jax.Array:
        # The edges of the cube are at infinity.
        inside = jnp.clip(u, jnp.finfo(u.dtype).tiny, 1.0 - jnp.finfo(u.dtype).eps)
        return posterior.log_likelihood(posterior.from_cube(inside))

    return jax.jit(jax.vmap(one))


def _weighted(posterior: Posterior, cube: np.ndarray) -> dict[str, np.ndarray]:
    points = jax.jit(jax.vmap(posterior.from_cube))(np.clip(cube, 1e-300, 1.0 - 2.3e-16))
    sites = posterior.constrain(np.asarray(points))
    return {name: value[None] for name, value in sites.items()}


def run_nautilus(posterior: Posterior, budget: int, seed: int) -> Outcome:
    """`budget` live points; ends at nautilus' own 10,000 effective draws."""
    from nautilus import Sampler

    compiled = _cube_likelihood(posterior)
    sampler = Sampler(
        lambda u: u,
        lambda u: np.asarray(compiled(np.atleast_2d(u)), np.float64),
        n_dim=posterior.dim,
        n_live=budget,
        vectorized=True,
        pass_dict=False,
        seed=seed,
    )
    sampler.run(verbose=False)
    cube, log_weights, _ = sampler.posterior()
    return Outcome(
        draws=_weighted(posterior, cube),
        log_weights=log_weights,
        independent=True,
        densities=int(sampler.n_like),
        # Its authors' estimate of the error.
        evidence=Evidence(float(sampler.log_z), float(sampler.n_eff**-0.5)),
    )


def run_dynesty(posterior: Posterior, budget: int, seed: int) -> Outcome:
    """`budget` live points, static nested sampling as it comes."""
    import dynesty

    compiled = _cube_likelihood(posterior)
    sampler = dynesty.NestedSampler(
        lambda u: float(compiled(u[None])[0]),
        lambda u: u,
        posterior.dim,
        nlive=budget,
        rstate=np.random.default_rng(seed),
    )
    sampler.run_nested(print_progress=False)
    results = sampler.results
    return Outcome(
        draws=_weighted(posterior, results.samples),
        log_weights=np.asarray(results.logwt),
        independent=True,
        densities=int(np.sum(results.ncall)),
        evidence=Evidence(float(results.logz[-1]), float(results.logzerr[-1])),
    )


PEERS = (
    Peer(
        "nautilus",
        run_nautilus,
        (1000, 2000, 4000),
        (2000,),
        ("nautilus",),
        asks_draws=False,
        x64=True,
        settings="vectorised likelihood, 10,000 effective draws; live points",
    ),
    Peer(
        "dynesty",
        run_dynesty,
        (250, 500, 2000),
        (500,),
        ("dynesty",),
        asks_draws=False,
        x64=True,
        settings="static, its own choice of sampling; live points",
    ),
)
