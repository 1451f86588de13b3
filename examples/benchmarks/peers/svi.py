"""NumPyro's stochastic variational inference, with importance weights from the fitted guide."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoBNAFNormal, AutoIAFNormal, AutoMultivariateNormal

from numpyro_onestep.inference_data import psis
from peers.base import Evidence, Outcome, Peer
from peers.posterior import Posterior, in_chunks

STEPS, PARTICLES, RATE = 10_000, 8, 5e-3


def run(posterior: Posterior, budget: int, seed: int, *, guide_class: type) -> Outcome:
    """`budget` independent weighted draws of a guide trained for a fixed number of steps."""
    key_fit, key_draw = jax.random.split(jax.random.key(seed))
    guide = guide_class(posterior.model)
    schedule = optax.cosine_decay_schedule(RATE, STEPS, alpha=0.01)
    svi = SVI(posterior.model, guide, optax.adam(schedule), Trace_ELBO(num_particles=PARTICLES))
    fitted = svi.run(key_fit, STEPS, progress_bar=False, **posterior.arguments)
    transform = guide.get_transform(fitted.params)

    def weigh(z: jax.Array) -> dict[str, jax.Array]:
        x, intermediates = transform.call_with_intermediates(z)
        log_q = -0.5 * jnp.sum(z**2) - 0.5 * z.size * jnp.log(2.0 * jnp.pi)
        log_q -= transform.log_abs_det_jacobian(z, x, intermediates)
        return {"x": x, "log_weight": posterior.log_joint(x) - log_q}

    base = jax.random.normal(key_draw, (budget, posterior.dim))
    found = in_chunks(jax.jit(jax.vmap(weigh)), np.asarray(base))
    log_weights = np.asarray(found["log_weight"], np.float64)
    sites = posterior.constrain(found["x"])
    return Outcome(
        draws={name: value[None] for name, value in sites.items()},
        log_weights=log_weights,
        independent=True,
        densities=budget,
        gradients=STEPS * PARTICLES,
        evidence=mean_weight(log_weights),
        extra={"pareto_k": psis(log_weights)[1]},
    )


def mean_weight(log_weights: np.ndarray) -> Evidence:
    """Log of the mean weight, and its error by the delta method."""
    top = np.max(log_weights)
    weights = np.exp(log_weights - top)
    mean = weights.mean()
    se = weights.std(ddof=1) / np.sqrt(len(weights)) / mean
    return Evidence(float(np.log(mean) + top), float(se))


_GUIDES = {"MVN": AutoMultivariateNormal, "IAF": AutoIAFNormal, "BNAF": AutoBNAFNormal}
PEERS = tuple(
    Peer(
        f"SVI {name}",
        partial(run, guide_class=guide_class),
        (4000, 100_000),
        (4000,),
        settings=f"{guide_class.__name__}, {STEPS} steps of Adam, {PARTICLES} draws each, cosine "
        f"from {RATE}; weighted draws",
    )
    for name, guide_class in _GUIDES.items()
)
