"""Eight schools: draws, evidence and a verdict in place of `MCMC(NUTS(model))`.

Prints the summary and the verdict, and writes `eight_schools.nc` (every draw, weight and
diagnostic) and `eight_schools.png` (the posterior of every scalar and the weight diagnostic).
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from numpyro_onestep import OneStepInference, plot_posterior_and_weights

# Estimated effects of coaching on test scores, and their standard errors (Rubin 1981).
EFFECT = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
STANDARD_ERROR = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(standard_error: jax.Array, effect: jax.Array | None = None) -> None:
    """Partially pooled effects, non-centred: `theta = mu + tau * eta`."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", standard_error.shape[0]):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * eta)
        numpyro.sample("effect", dist.Normal(theta, standard_error), obs=effect)


def main(argv: list[str] | None = None) -> OneStepInference:
    """Runs the example with the options of the command line and returns the inference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-samples", type=int, default=1000, help="draws per chain, of four")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, default=Path("."))
    options = parser.parse_args(argv)

    inference = OneStepInference(eight_schools, num_samples=options.num_samples)
    result = inference.run(jax.random.key(options.seed), STANDARD_ERROR, effect=EFFECT)
    inference.print_summary()

    options.output_dir.mkdir(parents=True, exist_ok=True)
    netcdf = options.output_dir / "eight_schools.nc"
    picture = options.output_dir / "eight_schools.png"
    result.to_netcdf(str(netcdf))
    plot_posterior_and_weights(result).savefig(picture, dpi=120)
    print(f"wrote {netcdf} and {picture}")
    return inference


if __name__ == "__main__":
    main()
