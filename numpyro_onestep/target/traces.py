"""Traces of a target's model, and what a traced site is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.distributions.distribution import ImproperUniform, Unit

if TYPE_CHECKING:
    from numpyro_onestep.target.base import Target

Site = dict[str, Any]
Trace = dict[str, Site]


def apart() -> handlers.block:
    """A context in which models run unseen by the handlers of a model that is running already."""
    return handlers.block()


def trace_at(target: Target, x: jax.Array) -> Trace:
    """Trace of the model with its latent sites at the unconstrained point `x: (dim,)`.

    Discrete latent sites take a fixed draw from their prior.
    """
    program = target.program
    args, kwargs = target.arguments
    sites = program.unravel(x)

    def constrained(site: Site) -> jax.Array | None:
        if site["type"] == "sample" and site["name"] in sites:
            return biject_to(site["fn"].support)(sites[site["name"]])
        return None

    model = handlers.substitute(handlers.seed(program.plain_model, 0), substitute_fn=constrained)
    return handlers.trace(model).get_trace(*args, **kwargs)


def site_log_densities(target: Target, x: jax.Array) -> dict[str, jax.Array]:
    """Log-density `()` of each sample site at `x: (dim,)`, in the order of the model."""
    # An ordered dictionary, because JAX returns plain ones in alphabetical order.
    return OrderedDict(
        (name, jnp.sum(site["fn"].log_prob(site["value"])))
        for name, site in trace_at(target, x).items()
        if site["type"] == "sample"
    )


def parts(fn: Any) -> Iterator[Any]:
    """A distribution and all distributions that it is made of."""
    yield fn
    for value in vars(fn).values():
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, dist.Distribution):
                yield from parts(part)


def is_factor(site: Site) -> bool:
    """Whether a site is a `numpyro.factor` statement, which NumPyro writes as an observation."""
    return any(isinstance(part, Unit) for part in parts(site["fn"]))


def is_discrete(site: Site) -> bool:
    """Whether a site is a discrete latent one."""
    return site["type"] == "sample" and not site["is_observed"] and site["fn"].support.is_discrete


def is_continuous(site: Site) -> bool:
    """Whether a site is a continuous latent one."""
    return site["type"] == "sample" and not site["is_observed"] and not is_discrete(site)


def is_improper(site: Site) -> bool:
    """Whether a site has no density that integrates to one."""
    return any(isinstance(part, ImproperUniform) for part in parts(site["fn"]))


def can_be_drawn(site: Site) -> bool:
    """Whether values of a site can be drawn from its distribution."""
    try:
        jax.eval_shape(site["fn"].sample, jax.random.key(0))
    except Exception:  # NotImplementedError, or whatever a distribution of the user's raises
        return False
    return not is_improper(site)
