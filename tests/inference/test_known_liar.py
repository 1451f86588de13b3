"""A sampler with perfect weights and a wrong evidence must not pass.

Centred eight schools is a funnel. A map that minimises the variance of its own log-weights gives
up the neck, which its draws then never visit: the effective sample size rises to that of
independent draws while the evidence falls by half a nat. Nothing in the weights shows it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from numpyro_onestep import flow as flows
from numpyro_onestep.diagnostics import judge
from numpyro_onestep.inference.checking import measure
from numpyro_onestep.inference.drawing import ready, weigh, weighted_draws
from numpyro_onestep.preconditioner import log_density
from numpyro_onestep.target import build_target
from numpyro_onestep.training import ResampleMove, train
from numpyro_onestep.training.draws import standard_normal_log_density

Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
LOG_EVIDENCE = -31.3114  # quadrature over tau, everything else in closed form
# One sampler for all: with one of its own for the neck, the liar could not give that up.
METHOD = ResampleMove(
    width=32,
    num_blocks=2,
    num_points=1000,
    num_updates=100,
    max_rounds=3,
    num_annealing=1,
    max_modes=1,
)
NUM_STEPS, BATCH, RATE = 10_000, 128, 5e-3


def centred():
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, SIGMA), obs=Y)


def fitted_to_its_own_draws(target, sampler):
    """The sampler after descending the variance of its own log-weights, nothing else."""

    def variance(params, key):
        blocks = sampler.flow.steps(params, 1)
        z = jax.random.normal(key, (BATCH, target.dim))
        x, log_det, _ = jax.vmap(flows.apply_with_log_det, in_axes=(None, 0))(blocks, z)
        value = jax.vmap(functools.partial(log_density, target, sampler.affine))(x)
        return jnp.var(value + log_det - standard_normal_log_density(z))

    rate = optax.cosine_decay_schedule(RATE, NUM_STEPS)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def step(carry, i):
        params, state = carry
        gradient = jax.grad(variance)(params, jax.random.fold_in(jax.random.key(2), i))
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def run(params):
        start = (params, optimiser.init(params))
        return jax.lax.scan(step, start, jnp.arange(NUM_STEPS))[0][0]

    return dataclasses.replace(sampler, params=run(sampler.params))


@pytest.mark.slow
def test_the_known_liar_is_caught():
    target = build_target(jax.random.key(0), centred, (), {})
    # In the user's coordinates: in those that would be chosen there is no neck to give up.
    target = dataclasses.replace(
        target, program=dataclasses.replace(target.program, loc_scale={}, scored=())
    )
    mixture, history = train(target, jax.random.key(1), METHOD)
    (sampler,) = mixture.components
    liar = mixture.replace(components=(fitted_to_its_own_draws(target, sampler),))
    chunk = METHOD.num_points
    parts = ready(target, liar, 1)
    draws, first = weighted_draws(parts, jax.random.key(3), 4 * chunk, chunk)
    weighed = weigh(draws)
    checks, _ = measure(
        target, liar, history, draws, weighed, first, jax.random.key(4), num_steps=1
    )
    # The lie: almost independent draws, a small error, and an evidence a third too small.
    told = weighed.evidence
    assert checks.ess_fraction > 0.97
    assert told.log_evidence < LOG_EVIDENCE - 0.4
    assert told.log_evidence + 10.0 * told.se < LOG_EVIDENCE
    # What the exploration found out of their reach is in the error that is stated.
    assert abs(checks.one_step.log_evidence - LOG_EVIDENCE) < 3.0 * checks.one_step.se
    assert judge(checks).label == "unreliable"
    # Points moved by MCMC catch it by themselves, with every other witness silent.
    silenced = dataclasses.replace(
        checks,
        one_step=told,
        pareto_k=0.1,
        few_step=None,
        few_step_pareto_k=None,
        missed_share=0.0,
    )
    verdict = judge(silenced)
    assert verdict.label == "unreliable"
    assert "found parts of the posterior that the draws miss" in verdict.reasons[0]
    assert checks.coverage.eubo > checks.one_step.log_evidence + 0.25
