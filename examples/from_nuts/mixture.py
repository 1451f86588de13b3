"""Waits for a geyser: a mixture whose labels are summed out, then drawn given the data.

The waits fall into two groups. To which one each belongs is a discrete latent site, which needs
the extra funsor. The data are generated.
"""

import argparse

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, Predictive

generator = np.random.default_rng(5)
WAITS = np.concatenate([generator.normal(54.0, 6.0, 21), generator.normal(80.0, 6.0, 39)])


def model(waits):
    """A short and a long kind of wait, with one spread."""
    share = numpyro.sample("share", dist.Beta(2.0, 2.0))
    spread = numpyro.sample("spread", dist.LogNormal(2.0, 0.5))
    short = numpyro.sample("short", dist.Normal(60.0, 10.0))
    longer_by = numpyro.sample("longer_by", dist.HalfNormal(30.0))
    with numpyro.plate("wait", len(waits)):
        is_long = numpyro.sample("is_long", dist.Bernoulli(share), infer={"enumerate": "parallel"})
        numpyro.sample("waits", dist.Normal(short + longer_by * is_long, spread), obs=waits)


def main(argv=None):
    """Fits, recovers the labels, and returns the fitted sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--num-chains", type=int, default=4)
    args = parser.parse_args(argv)

    kernel = NUTS(model)
    mcmc = MCMC(kernel, num_warmup=500, num_samples=args.num_samples, num_chains=args.num_chains)
    mcmc.run(jax.random.key(0), WAITS)
    # ArviZ 0.23 cannot take the likelihood of a model with discrete sites.
    result = az.from_numpyro(mcmc, log_likelihood=False)
    print(az.summary(result, var_names=["share", "spread", "short", "longer_by"]))

    labels = Predictive(model, mcmc.get_samples(), infer_discrete=True)(jax.random.key(1), WAITS)
    long = jnp.mean(labels["is_long"], axis=0)
    for wait in (55.0, 67.0, 80.0):
        nearest = np.argmin(np.abs(WAITS - wait))
        print(f"{WAITS[nearest]:.1f} minutes: long with probability {long[nearest]:.2f}")
    return mcmc


if __name__ == "__main__":
    main()
