"""Models that are explored: a conjugate one, and two modes with a prior and without."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

Y = np.array([1.0, -2.0, 30.0])


def conjugate(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0).expand([3]).to_event(1))
    scale = numpyro.sample("scale", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Normal(mu, 0.1), obs=y)
    numpyro.sample("z", dist.Gamma(3.0, scale), obs=2.0)


def hidden(distance):
    """Nothing but its own prior says where the second mode is."""
    normals = dist.Normal(jnp.array([0.0, distance]), 1.0)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.array([0.1, 0.9])), normals))


def flat(distance):
    """No prior at all."""
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
    terms = [jnp.log(0.1) + dist.Normal(0.0, 1.0).log_prob(x)]
    terms += [jnp.log(0.9) + dist.Normal(distance, 1.0).log_prob(x)]
    numpyro.factor("f", jnp.logaddexp(*terms))
