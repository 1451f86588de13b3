r"""Loc-scale sites of a model, and the model with those sites anywhere between two forms.

A latent site `theta = loc + scale * e`, with `loc` or `scale` made from other latent sites, has
coordinates between its own and those of `e` (see `target.centring`). The evidence does not depend
on the centredness c that stands for them; how close the posterior there is to a normal does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from numpyro import handlers
from numpyro.infer.reparam import Reparam
from numpyro.ops.provenance import eval_provenance

from numpyro_onestep.target.centring import (
    bare_distribution,
    can_be_centred,
    centring,
    moving_parameters,
)
from numpyro_onestep.target.normal_scores import (
    NormalScore,
    auxiliary_name,
    has_normal_score,
    parameters,
)
from numpyro_onestep.target.traces import Site, Trace, is_continuous, is_discrete

Centredness = dict[str, jax.Array]
"""`c` by site, each of the shape of the site's value."""

# Sites that NumPyro's reparametrisations add, next to a deterministic site of the bare name.
_ADDED = ("_decentered", "_base", "_normal")


class _Recentre(Reparam):
    """A site as a function of its coordinates at some centredness, before any transforms."""

    def __init__(self, centredness: jax.Array) -> None:
        self.centredness = centredness

    def __call__(self, name: str, fn: Any, obs: Any) -> tuple[None, jax.Array]:
        if obs is not None:
            raise ValueError(f"site '{name}' has its value already, as inside `scan`")
        bare, expand_shape, event_dim = self._unwrap(fn)
        at = centring(bare, self.centredness)
        auxiliary = self._wrap(at.auxiliary, expand_shape, event_dim)
        value = at.value(numpyro.sample(auxiliary_name(name), auxiliary))
        for transform in getattr(bare, "transforms", ()):
            value = transform(value)
        return None, value


@dataclasses.dataclass(frozen=True)
class RecentredModel:
    """The user's model with the centredness of some sites as its first argument.

    Each of those sites becomes a deterministic one of the same name and value, beside an auxiliary
    latent site (see `normal_scores.auxiliary_name`).

    Attributes:
        model: the user's.
        scored: sites that are replaced by the normal scores of their prior.
    """

    model: Callable[..., Any]
    scored: tuple[str, ...] = ()

    def __call__(self, centredness: Centredness, *args: Any, **kwargs: Any) -> Any:
        """Runs the model with NumPyro's handler for reparametrisations."""
        config: dict[str, Reparam] = {name: _Recentre(c) for name, c in centredness.items()}
        config |= {name: NormalScore() for name in self.scored}
        return handlers.reparam(self.model, config=config)(*args, **kwargs)


class Replaceable(NamedTuple):
    """Sites that may be put into other coordinates, in the order of the model.

    Attributes:
        loc_scale: sites whose loc or scale depends on other latent sites, each with its support.
        scored: sites whose distribution has closed normal scores and depends on no latent site.
    """

    loc_scale: dict[str, Any]
    scored: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.loc_scale, *self.scored)

    def only(self, names: Container[str]) -> Replaceable:
        """Those with such names."""
        return Replaceable(
            {name: support for name, support in self.loc_scale.items() if name in names},
            tuple(name for name in self.scored if name in names),
        )


def replaceable_sites(
    model: Callable[..., Any], arguments: tuple[tuple[Any, ...], dict[str, Any]], sites: Trace
) -> Replaceable:
    """Latent sites of known families that depend on other latent sites as they should.

    On continuous ones only, that is, or on none. Sites that the user reparametrised are left alone.

    Args:
        model: seeded.
        arguments: positional and keyword ones.
        sites: a trace of the model with them; its values serve for their shapes.
    """
    movable = [name for name, site in sites.items() if _is_candidate(site, sites)]
    scorable = [name for name, site in sites.items() if _is_scorable(site, sites)]
    if not movable and not scorable:
        return Replaceable({}, ())
    latent = {
        name: jax.ShapeDtypeStruct(jnp.shape(site["value"]), jnp.result_type(site["value"]))
        for name, site in sites.items()
        if is_continuous(site) or is_discrete(site)
    }

    def all_parameters(**values: Any) -> Any:
        args, kwargs = arguments
        again = handlers.trace(handlers.substitute(model, data=values)).get_trace(*args, **kwargs)
        moving = {name: moving_parameters(again[name]["fn"]) for name in movable}
        return moving, {name: parameters(bare_distribution(again[name]["fn"])) for name in scorable}

    try:
        depends = eval_provenance(all_parameters, **latent)
    except Exception:  # a model that cannot be traced that way stays as it is
        return Replaceable({}, ())
    moving, scoring = (
        {name: frozenset().union(*of) for name, of in part.items()} for part in depends
    )
    discrete = {name for name in latent if is_discrete(sites[name])}
    chosen = [name for name in movable if moving[name] and not moving[name] & discrete]
    return Replaceable(
        {name: _support(sites[name]["fn"]) for name in chosen},
        tuple(name for name in scorable if not scoring[name]),
    )


def _is_scorable(site: Site, sites: Trace) -> bool:
    return _is_free(site, sites) and has_normal_score(bare_distribution(site["fn"]))


def _is_free(site: Site, sites: Trace) -> bool:
    # With a scaled density, the Jacobian of a reparametrisation would be scaled too.
    if not is_continuous(site) or site["scale"] is not None:
        return False
    name = site["name"]
    return not any(name.endswith(end) and name.removesuffix(end) in sites for end in _ADDED)


def _is_candidate(site: Site, sites: Trace) -> bool:
    return _is_free(site, sites) and can_be_centred(site["fn"])


def _support(fn: Any) -> Any:
    return bare_distribution(fn).support
