"""BlackJAX's adaptive tempered sequential Monte Carlo from the prior, moved by tuned HMC."""

import jax
import jax.numpy as jnp
import numpy as np

from peers.base import Evidence, Outcome, Peer
from peers.posterior import Posterior

MOVES, LEAPFROG, TARGET_ESS = 4, 8, 0.7


def run(posterior: Posterior, budget: int, seed: int) -> Outcome:
    """`budget` particles; at each temperature the mass matrix is the particles' covariance."""
    import blackjax
    from blackjax.smc import extend_params
    from blackjax.smc.resampling import systematic
    from blackjax.smc.tuning.from_particles import particles_covariance_matrix

    key_prior, key_run = jax.random.split(jax.random.key(seed))
    particles = posterior.prior_draws(key_prior, budget)
    dim = posterior.dim
    # In the metric of the covariance a normal target needs steps that shrink as dim^(-1/4).
    step_size = jnp.asarray(1.2 * dim**-0.25)

    def parameters(particles: jax.Array) -> dict:
        covariance = jnp.atleast_2d(particles_covariance_matrix(particles))
        jitter = 1e-6 * jnp.trace(covariance) / dim
        matrix = covariance + jitter * jnp.eye(dim)
        return extend_params({"inverse_mass_matrix": matrix, "step_size": step_size})

    kernel = blackjax.hmc.build_kernel()
    smc = blackjax.inner_kernel_tuning(
        smc_algorithm=blackjax.adaptive_tempered_smc,
        logprior_fn=posterior.log_prior,
        loglikelihood_fn=posterior.log_likelihood,
        mcmc_step_fn=lambda key, state, log_density, **parameters: kernel(
            key, state, log_density, num_integration_steps=LEAPFROG, **parameters
        ),
        mcmc_init_fn=blackjax.hmc.init,
        resampling_fn=systematic,
        mcmc_parameter_update_fn=lambda key, state, info: parameters(state.particles),
        initial_parameter_value=parameters(particles),
        num_mcmc_steps=MOVES,
        target_ess=TARGET_ESS,
    )
    step = jax.jit(smc.step)
    state, log_z, temperatures = smc.init(particles), 0.0, 0
    acceptance = np.nan
    while float(state.sampler_state.tempering_param) < 1.0:
        state, info = step(jax.random.fold_in(key_run, temperatures), state)
        log_z += float(info.log_likelihood_increment)
        acceptance = float(jnp.mean(info.update_info.acceptance_rate))
        temperatures += 1
    sites = posterior.constrain(np.asarray(state.sampler_state.particles))
    return Outcome(
        draws={name: value[None] for name, value in sites.items()},
        independent=None,
        gradients=temperatures * budget * MOVES * (LEAPFROG + 1),
        densities=temperatures * budget * 2,
        evidence=Evidence(log_z, None),
        extra={"temperatures": temperatures, "acceptance": acceptance},
    )


PEERS = (
    Peer(
        "BlackJAX SMC",
        run,
        (1000, 4000, 16_000),
        (4000,),
        ("blackjax",),
        asks_draws=False,
        x64=True,
        settings=f"adaptive tempering, ESS {TARGET_ESS}, {MOVES} HMC moves of {LEAPFROG} steps; "
        "particles",
    ),
)
