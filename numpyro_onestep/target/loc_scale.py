r"""Loc-scale sites of a model, and the model with those sites anywhere between two forms.

A latent site `theta = loc + scale * e`, with `loc` or `scale` made from other latent sites, has in

    u = c loc + scale^(c - 1) (theta - loc),    0 <= c <= 1,

its own coordinates at c = 1 and those of `e` at c = 0 (Gorinova, Moore and Hoffman,
arXiv 1906.03028; NumPyro's `LocScaleReparam`). The evidence does not depend on c; how close the
posterior of `u` is to a normal does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer.reparam import LocScaleReparam, Reparam
from numpyro.ops.provenance import eval_provenance

from numpyro_onestep.target.traces import Site, Trace, is_continuous, is_discrete

Centredness = dict[str, jax.Array]
"""`c` by site, each of the shape of the site's value."""

# Families that a change of loc and scale maps to themselves, with their other parameters.
_SHAPE_PARAMETERS: dict[type, tuple[str, ...]] = {
    dist.AsymmetricLaplace: ("asymmetry",),
    dist.Cauchy: (),
    dist.Gumbel: (),
    dist.Laplace: (),
    dist.Logistic: (),
    dist.Normal: (),
    dist.SoftLaplace: (),
    dist.StudentT: ("df",),
}
# Supports that no parameter enters.
_SUPPORTS = (constraints.real, constraints.positive, constraints.unit_interval)
# Sites that NumPyro's reparametrisations add, next to a deterministic site of the bare name.
_ADDED = ("_decentered", "_base", "_normal")


class _Recentre(Reparam):
    """`LocScaleReparam`, in the place of the base distribution where there are transforms."""

    def __init__(self, centredness: jax.Array) -> None:
        self.centredness = centredness

    def __call__(self, name: str, fn: Any, obs: Any) -> tuple[None, jax.Array]:
        bare, expand_shape, event_dim = self._unwrap(fn)
        transforms = []
        if isinstance(bare, dist.TransformedDistribution):
            transforms, bare = bare.transforms, bare_distribution(bare.base_dist)
            fn = self._wrap(bare, expand_shape, event_dim)
        shape_parameters = _SHAPE_PARAMETERS[type(bare)]
        _, value = LocScaleReparam(self.centredness, shape_parameters)(name, fn, obs)
        for transform in transforms:
            value = transform(value)
        return None, value


@dataclasses.dataclass(frozen=True)
class RecentredModel:
    """The user's model with the centredness of some sites as its first argument.

    Each of those sites becomes a deterministic one of the same name and value, beside an auxiliary
    latent site (see `auxiliary_name`).
    """

    model: Callable[..., Any]

    def __call__(self, centredness: Centredness, *args: Any, **kwargs: Any) -> Any:
        """Runs the model with NumPyro's handler for reparametrisations."""
        config = {name: _Recentre(c) for name, c in centredness.items()}
        return handlers.reparam(self.model, config=config)(*args, **kwargs)


def auxiliary_name(site: str) -> str:
    """Name of the site that `LocScaleReparam` puts in the place of another."""
    return f"{site}_decentered"


def loc_scale_sites(
    model: Callable[..., Any], arguments: tuple[tuple[Any, ...], dict[str, Any]], sites: Trace
) -> dict[str, Any]:
    """Sites that may be recentred, in the order of the model, each with its support.

    They are latent sites of a known family whose loc or scale depends on other latent sites, on
    continuous ones only. Sites that the user reparametrised are left alone.

    Args:
        model: seeded.
        arguments: positional and keyword ones.
        sites: a trace of the model with them; its values serve for their shapes.
    """
    candidates = [name for name, site in sites.items() if _is_candidate(site, sites)]
    if not candidates:
        return {}
    latent = {
        name: jax.ShapeDtypeStruct(jnp.shape(site["value"]), jnp.result_type(site["value"]))
        for name, site in sites.items()
        if is_continuous(site) or is_discrete(site)
    }

    def parameters(**values: Any) -> Any:
        args, kwargs = arguments
        again = handlers.trace(handlers.substitute(model, data=values)).get_trace(*args, **kwargs)
        return {name: loc_and_scale(again[name]["fn"]) for name in candidates}

    try:
        depends = eval_provenance(parameters, **latent)
    except Exception:  # a model that cannot be traced that way stays as it is
        return {}
    discrete = {name for name in latent if is_discrete(sites[name])}
    chosen = {}
    for name in candidates:
        upstream = frozenset().union(*depends[name])
        if upstream and not upstream & discrete:
            chosen[name] = _support(sites[name]["fn"])
    return chosen


def _is_candidate(site: Site, sites: Trace) -> bool:
    # With a scaled density, the Jacobian of a reparametrisation would be scaled too.
    if not is_continuous(site) or site["scale"] is not None:
        return False
    name = site["name"]
    if any(name.endswith(end) and name.removesuffix(end) in sites for end in _ADDED):
        return False
    fn = bare_distribution(site["fn"])
    if not any(_support(fn) is support for support in _SUPPORTS):
        return False
    if isinstance(fn, dist.TransformedDistribution):
        # Where unconstrained coordinates are those of the base distribution, as in a log-normal.
        bijection = type(biject_to(fn.support))
        if [type(transform) for transform in fn.transforms] != [bijection]:
            return False
        fn = bare_distribution(fn.base_dist)
    return type(fn) in _SHAPE_PARAMETERS


def bare_distribution(fn: Any) -> Any:
    """A distribution without its event dimensions and expansions."""
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn


def loc_and_scale(fn: Any) -> tuple[Any, Any]:
    """Of a site's value in unconstrained coordinates."""
    fn = bare_distribution(fn)
    if isinstance(fn, dist.TransformedDistribution):
        fn = bare_distribution(fn.base_dist)
    return fn.loc, fn.scale


def _support(fn: Any) -> Any:
    return bare_distribution(fn).support
