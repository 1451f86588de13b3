"""Settings that keep a run short, and models at the top of a module, so that they pickle."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_onestep import OneStepInference, ResampleMove

# A run takes seconds, nearly all of them compilation.
QUICK = ResampleMove(
    width=16, num_blocks=2, num_points=500, num_updates=50, max_rounds=3, num_annealing=2
)


def run(model, *args, key=0, warn=False, options=None, **kwargs):
    """A finished inference with quick settings; warnings of poor verdicts only where wanted."""
    # Rescues by NUTS have tests of their own.
    defaults = {"method": QUICK, "progress_bar": False, "num_samples": 500, "fallback": None}
    inference = OneStepInference(model, **{**defaults, **(options or {})})
    rng_key = jax.random.key(key) if isinstance(key, int) else key
    with warnings.catch_warnings():
        if not warn:
            warnings.filterwarnings("ignore", "the verdict on this run")
        inference.run(rng_key, *args, **kwargs)
    return inference


def stat(inference, name):
    """A scalar of the group sample_stats."""
    return float(inference.inference_data["sample_stats"][name])


def line(x, y=None):
    """Straight line with unknown noise."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("n", len(x)):
        numpyro.sample("height", dist.Normal(slope * x, noise), obs=y)


X = np.linspace(-1.0, 1.0, 8)
Y = 0.7 * X + 0.3 * np.sin(17.0 * np.arange(8))


def schools(error, effect=None):
    """A small hierarchy: scalars, a site and a deterministic inside a plate."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(5.0))
    with numpyro.plate("school", len(error)):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * eta)
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)


ERROR = np.array([15.0, 10.0, 16.0])
EFFECT = np.array([28.0, 8.0, -3.0])


def mixture(y):
    """Two clusters; the label of each point is summed out."""
    centre = numpyro.sample("centre", dist.Normal(jnp.array([-2.0, 2.0]), 0.5).to_event(1))
    share = numpyro.sample("share", dist.Beta(2.0, 2.0))
    with numpyro.plate("n", len(y)):
        label = numpyro.sample("label", dist.Bernoulli(share), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(centre[label], 0.5), obs=y)
