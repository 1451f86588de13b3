"""The model's prior in unconstrained coordinates: broad points, and their density.

Both serve to explore, not to weigh: discrete latent sites hold one draw of their prior, and a site
without a prior to draw from (`ImproperUniform`, a distribution without `sample`) has a broad normal
in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import Normal, biject_to
from numpyro.distributions.transforms import IdentityTransform, IndependentTransform

from numpyro_onestep.target.traces import Site, can_be_drawn, trace_at

if TYPE_CHECKING:
    from numpyro_onestep.target.base import Target

# Standard deviations in unconstrained coordinates, where there is no prior to say how far to look:
# of what is real as it is; and of logarithms and the like, where 100 would be e^100.
_BROAD, _BROAD_TRANSFORMED = 100.0, 5.0


def prior_points(target: Target, rng_key: jax.Array, num: int) -> jax.Array:
    """`(num, dim)`, independent; not all need be finite."""
    return jax.vmap(lambda key: _prior_point(target, key))(jax.random.split(rng_key, num))


def _prior_point(target: Target, rng_key: jax.Array) -> jax.Array:
    program = target.program

    def broad(site: Site) -> jax.Array | None:
        if site["type"] != "sample" or site["name"] not in program.unconstrained_shapes:
            return None
        if can_be_drawn(site):
            return None  # the seed draws it
        shape = program.unconstrained_shapes[site["name"]]
        value = _width(site) * jax.random.normal(site["kwargs"]["rng_key"], shape)
        return biject_to(site["fn"].support)(value)

    args, kwargs = target.arguments
    model = handlers.substitute(handlers.seed(program.plain_model, rng_key), substitute_fn=broad)
    trace = handlers.trace(model).get_trace(*args, **kwargs)
    return program.ravel(
        {
            name: biject_to(trace[name]["fn"].support).inv(trace[name]["value"])
            for name in program.unconstrained_shapes
        }
    )


def log_prior(target: Target, x: jax.Array) -> jax.Array:
    """Log-density of `prior_points` at `x: (dim,)`."""
    unconstrained = target.program.unravel(x)
    total = jnp.zeros((), x.dtype)
    for name, site in trace_at(target, x).items():
        if name not in unconstrained:
            continue
        u = unconstrained[name]
        if can_be_drawn(site):
            transform = biject_to(site["fn"].support)
            total += jnp.sum(site["fn"].log_prob(site["value"]))
            total += jnp.sum(transform.log_abs_det_jacobian(u, site["value"]))
        else:
            total += Normal(0.0, _width(site)).log_prob(u).sum()
    return total


def _width(site: Site) -> float:
    transform = biject_to(site["fn"].support)
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return _BROAD if isinstance(transform, IdentityTransform) else _BROAD_TRANSFORMED
