"""Eight schools, written centred and made non-centred by a handler; effects for a new school."""

import argparse

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.reparam import LocScaleReparam

# Estimated effects of coaching on test scores, and their standard errors (Rubin 1981).
EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
STANDARD_ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@numpyro.handlers.reparam(config={"theta": LocScaleReparam(centered=0.0)})
def eight_schools(standard_error, effect=None):
    """Schools differ by `tau` around `mu`."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(standard_error)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, standard_error), obs=effect)


def new_school():
    """A school of which nothing is known but the population."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    return numpyro.sample("effect", dist.Normal(mu, tau))


def main(argv=None):
    """Fits, prints, and returns the fitted sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--num-chains", type=int, default=4)
    args = parser.parse_args(argv)

    nuts = NUTS(eight_schools, target_accept_prob=0.9)
    mcmc = MCMC(nuts, num_warmup=500, num_samples=args.num_samples, num_chains=args.num_chains)
    mcmc.run(jax.random.key(0), STANDARD_ERROR, effect=EFFECT, extra_fields=("potential_energy",))
    mcmc.print_summary(exclude_deterministic=False)
    energy = mcmc.get_extra_fields()["potential_energy"]
    print(f"expected log joint density: {np.mean(-energy):.2f}")

    predicted = Predictive(new_school, mcmc.get_samples())(jax.random.key(1))["effect"]
    print(f"a new school: {np.mean(predicted):.1f} +- {np.std(predicted):.1f}")
    return mcmc


if __name__ == "__main__":
    main()
