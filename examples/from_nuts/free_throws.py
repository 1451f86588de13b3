"""Free throws of fifteen players: partial pooling of proportions, and the season that follows.

Each player has taken few throws. Their abilities share a population, which pulls the extreme ones
to the middle; predictions of the rest of the season follow.
"""

import argparse

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, Predictive, log_likelihood

MADE = jnp.array([9, 14, 7, 16, 11, 13, 5, 12, 10, 15, 8, 17, 12, 6, 13])
THROWS = jnp.full(15, 20)
MADE_LATER = jnp.array([58, 70, 55, 74, 64, 60, 49, 66, 57, 69, 61, 72, 63, 52, 68])
THROWS_LATER = jnp.full(15, 100)


def partially_pooled(throws, made=None):
    """Abilities on the logit scale come from one normal population."""
    middle = numpyro.sample("middle", dist.Normal(0.0, 1.5))
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    with numpyro.plate("players", throws.shape[0]):
        offset = numpyro.sample("offset", dist.Normal(0.0, 1.0))
        logit = numpyro.deterministic("logit", middle + spread * offset)
        numpyro.sample("made", dist.Binomial(throws, logits=logit), obs=made)


def run_inference(model, args, rng_key):
    """Draws from the posterior of the first throws."""
    kernel = NUTS(model)
    mcmc = MCMC(kernel, num_warmup=500, num_samples=args.num_samples, num_chains=args.num_chains)
    mcmc.run(rng_key, THROWS, MADE)
    mcmc.print_summary()
    return mcmc


def main(argv=None):
    """Fits, predicts the season, and returns the fitted sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--num-chains", type=int, default=4)
    args = parser.parse_args(argv)

    key_fit, key_predict = jax.random.split(jax.random.PRNGKey(1))
    mcmc = run_inference(partially_pooled, args, key_fit)
    samples = mcmc.get_samples()

    season = Predictive(partially_pooled, samples)(key_predict, THROWS_LATER)["made"]
    low, high = jnp.percentile(season, jnp.array([5.0, 95.0]), axis=0)
    print("player  made of 20  season (90 %)  actual")
    for player in range(len(MADE)):
        interval = f"{low[player]:3.0f} to {high[player]:3.0f}"
        print(f"{player:6d}  {MADE[player]:10d}  {interval:>13}  {MADE_LATER[player]:6d}")

    later = log_likelihood(partially_pooled, samples, THROWS_LATER, MADE_LATER)["made"]
    density = jax.scipy.special.logsumexp(later, axis=0) - jnp.log(later.shape[0])
    print(f"log predictive density of the season: {density.sum():.2f}")
    return mcmc


if __name__ == "__main__":
    main()
