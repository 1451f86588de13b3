"""Linear regression: two predictors that correlate, residuals and predictions.

Warm regions have both more ice-cream stands and more swimmers, so each predictor alone looks as if
it mattered. The data are generated.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import hpdi
from numpyro.infer import MCMC, NUTS, Predictive

generator = np.random.default_rng(3)
WARMTH = generator.normal(size=50)
STANDS = 0.7 * WARMTH + 0.7 * generator.normal(size=50)
SWIMMERS = 0.6 * WARMTH + 0.5 * generator.normal(size=50)


def model(warmth=None, stands=None, swimmers=None):
    """Either predictor, or both, in standard units."""
    mean = numpyro.sample("a", dist.Normal(0.0, 0.2))
    if warmth is not None:
        mean += numpyro.sample("b_warmth", dist.Normal(0.0, 0.5)) * warmth
    if stands is not None:
        mean += numpyro.sample("b_stands", dist.Normal(0.0, 0.5)) * stands
    noise = numpyro.sample("noise", dist.Exponential(1.0))
    mean = numpyro.deterministic("mean", mean)
    numpyro.sample("swimmers", dist.Normal(mean, noise), obs=swimmers)


def main(argv=None):
    """Fits the model of both predictors and returns the fitted sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--num-chains", type=int, default=4)
    args = parser.parse_args(argv)

    rng_key, rng_key_ = jax.random.split(jax.random.PRNGKey(0))
    kernel = NUTS(model)
    mcmc = MCMC(kernel, num_warmup=500, num_samples=args.num_samples, num_chains=args.num_chains)
    mcmc.run(rng_key_, warmth=WARMTH, stands=STANDS, swimmers=SWIMMERS)
    mcmc.print_summary()
    samples = mcmc.get_samples()

    low, high = hpdi(samples["mean"], 0.9)
    share = jnp.mean((low < SWIMMERS) & (high > SWIMMERS))
    print(f"inside the 90 % interval of the mean: {share:.2f}")

    rng_key, rng_key_ = jax.random.split(rng_key)
    predictive = Predictive(model, samples)
    predicted = predictive(rng_key_, warmth=WARMTH, stands=STANDS)["swimmers"]
    low, high = hpdi(predicted, 0.9)
    share = jnp.mean((low < SWIMMERS) & (high > SWIMMERS))
    print(f"inside the 90 % interval of predictions: {share:.2f}")
    return mcmc


if __name__ == "__main__":
    main()
