"""A Gaussian process on the line: kernel parameters from the marginal likelihood, then the curve.

The data are generated.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, init_to_median

generator = np.random.default_rng(7)
X = np.sort(generator.uniform(-1.0, 1.0, 25))
Y = np.sin(4.0 * X) + 0.5 * X + 0.2 * generator.normal(size=25)
GRID = np.linspace(-1.2, 1.2, 30)


def kernel(x, z, variance, length, noise):
    """Squared exponential, with noise where both inputs are the same points."""
    distance = (x[:, None] - z) / length
    k = variance * jnp.exp(-0.5 * distance**2)
    return k + (noise + 1e-5) * jnp.eye(len(x)) if x is z else k


def model(x, y):
    """The curve itself is integrated out."""
    variance = numpyro.sample("variance", dist.LogNormal(0.0, 1.0))
    length = numpyro.sample("length", dist.LogNormal(-1.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(-3.0, 1.0))
    k = kernel(x, x, variance, length, noise)
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), k), obs=y)


def predict(rng_key, x, y, grid, variance, length, noise):
    """One curve given the data and one draw of the kernel's parameters."""
    cross = kernel(grid, x, variance, length, noise)
    solve = jax.scipy.linalg.cho_factor(kernel(x, x, variance, length, noise), lower=True)
    mean = cross @ jax.scipy.linalg.cho_solve(solve, y)
    k = kernel(grid, grid, variance, length, 0.0) - cross @ jax.scipy.linalg.cho_solve(
        solve, cross.T
    )
    sd = jnp.sqrt(jnp.clip(jnp.diag(k), 0.0))
    return mean + sd * jax.random.normal(rng_key, mean.shape)


def run_inference(model, args, rng_key, x, y):
    """Draws the parameters of the kernel."""
    nuts = NUTS(model, init_strategy=init_to_median(num_samples=10))
    mcmc = MCMC(nuts, num_warmup=500, num_samples=args.num_samples, num_chains=args.num_chains)
    mcmc.run(rng_key, x, y)
    mcmc.print_summary()
    return mcmc


def main(argv=None):
    """Fits, predicts on a grid, and returns the fitted sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--num-chains", type=int, default=4)
    args = parser.parse_args(argv)

    key_fit, key_predict = jax.random.split(jax.random.PRNGKey(0))
    mcmc = run_inference(model, args, key_fit, X, Y)
    draws = mcmc.get_samples()
    keys = jax.random.split(key_predict, draws["variance"].shape[0])
    curves = jax.vmap(lambda key, v, s, n: predict(key, X, Y, GRID, v, s, n))(
        keys, draws["variance"], draws["length"], draws["noise"]
    )
    low, high = np.percentile(curves, (5.0, 95.0), axis=0)
    for x, a, b in list(zip(GRID, low, high, strict=True))[::5]:
        print(f"curve at {x:5.2f}: {a:6.2f} to {b:6.2f}")
    return mcmc


if __name__ == "__main__":
    main()
