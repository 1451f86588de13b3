r"""Targets in coordinates between the centred and the non-centred ones of their loc-scale sites.

A recentred target is the target of the reparametrised model (see `target.loc_scale`), with the
centredness `c`, one number per element, among its data: programs compiled for one value serve all.
Its vectors have the layout of the user's. Nothing of it shows outside: `users_points` leads back to
the coordinates of the user's model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Normal, biject_to

from numpyro_onestep.compilation import compiled
from numpyro_onestep.target.base import Target
from numpyro_onestep.target.centring import Centring, bare_distribution, centring
from numpyro_onestep.target.conditional import (
    conditional,
    conditional_of,
    conditional_points,
    unconditional,
    unconditional_points,
)
from numpyro_onestep.target.loc_scale import Centredness
from numpyro_onestep.target.normal_scores import score_of
from numpyro_onestep.target.program import float_dtype
from numpyro_onestep.target.traces import trace_at


def can_be_recentred(target: Target) -> bool:
    """Whether the model has loc-scale sites that depend on other latent sites."""
    return bool(target.program.loc_scale)


def has_other_coordinates(target: Target) -> bool:
    """Whether it has those, or sites with normal scores."""
    return bool(target.program.loc_scale or target.program.scored)


def num_scored(target: Target) -> int:
    """Number of values that have normal scores."""
    shapes = target.program.unconstrained_shapes
    return sum(math.prod(shapes[name]) for name in target.program.scored)


def constant_centredness(target: Target, c: float) -> Centredness:
    """The same for all sites: 1 for the coordinates of the user's model."""
    shapes = target.program.constrained_shapes
    return {name: jnp.full(shapes[name], c, float_dtype()) for name in target.program.loc_scale}


def recentred(target: Target, centredness: Centredness | None) -> Target:
    """The target in the coordinates of this centredness, and of normal scores; None: as it is.

    Raises:
        ValueError: for the centredness of other sites, as in a file of another version.
    """
    given = conditional_of(target)
    if given is not None:
        inner = conditional(recentred(unconditional(target), centredness), given)
        return dataclasses.replace(target, data=inner.data, program=inner.program)
    program, users = target.program, target.program.users
    if centredness is None or (users is None and not has_other_coordinates(target)):
        return target
    data = target.data
    if users is None:
        program, users = program.recentred, program
    else:
        data = data[: len(data) - len(users.loc_scale)]
    if set(centredness) != set(users.loc_scale):
        raise ValueError(
            f"expected the centredness of the sites {sorted(users.loc_scale)}; got that of "
            f"{sorted(centredness)}: the sampler is of another version or another model"
        )
    data = (*data, *(centredness[name] for name in users.loc_scale))
    return dataclasses.replace(target, data=data, program=program)


def centredness_of(target: Target) -> Centredness | None:
    """The centredness of a recentred target; None for any other."""
    target = unconditional(target)
    users = target.program.users
    if users is None:
        return None
    first = len(target.data) - len(users.loc_scale)
    return dict(zip(users.loc_scale, target.data[first:], strict=True))


def users_target(target: Target) -> Target:
    """The target in the coordinates of the user's model, whatever kind of target this is."""
    target = unconditional(target)
    users = target.program.users
    if users is None:
        return target
    data = target.data[: len(target.data) - len(users.loc_scale)]
    return Target(data, users, target.evidence, target.evidence_note, target.in_double)


def starting_points(target: Target, rng_key: jax.Array, num: int) -> jax.Array:
    """The initial points `(num, dim)` of the user's model, in the coordinates of the target."""
    return recentred_points(target, users_target(target).initial_points(rng_key, num))


def recentred_points(target: Target, x: jax.Array) -> jax.Array:
    """Points `(n, dim)` of the user's model in the coordinates of the target, of any kind."""
    if conditional_of(target) is not None:
        return conditional_points(target, recentred_points(unconditional(target), x))
    return x if target.program.users is None else _recentred_points(target, x)


def users_points(target: Target, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Points of a target, of any kind, in the coordinates of the user's model.

    Args:
        target: recentred, with standardised values, or neither.
        u: its points `(n, dim)`.

    Returns:
        `x: (n, dim)`, and `log|det dx/du|`, `(n,)`.
    """
    if conditional_of(target) is not None:
        x, log_det = unconditional_points(target, u)
        x, more = users_points(unconditional(target), x)
        return x, log_det + more
    if target.program.users is None:
        return u, jnp.zeros(len(u), u.dtype)
    return _users_points(target, u)


@compiled(many_loops=True)
def _users_points(target: Target, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same for a recentred target."""
    users, centredness = users_target(target), centredness_of(target) or {}

    def one(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = target.constrain_one(u)
        scores = users.program.unravel(u)
        by_site = dict(scores)
        for name, support in users.program.loc_scale.items():
            by_site[name] = biject_to(support).inv(values[name])
        # No latent site enters these distributions: any point will do.
        scored = dict(_scored(users, u))
        for name, fn in scored.items():
            by_site[name] = biject_to(fn.support).inv(values[name])
        x = users.program.ravel(by_site)
        log_det = jnp.zeros((), x.dtype)
        for _, at in _standing(users, x, centredness):
            log_det += at.log_det
        for name, fn in scored.items():
            value, transform = values[name], biject_to(fn.support)
            log_prior = fn.log_prob(value)
            log_prior += transform.log_abs_det_jacobian(by_site[name], value)
            log_det += jnp.sum(Normal(0.0, 1.0).log_prob(scores[name]) - log_prior)
        return x, log_det

    return jax.vmap(one)(u)


@compiled(many_loops=True)
def _recentred_points(target: Target, x: jax.Array) -> jax.Array:
    """Points `(n, dim)` of the user's model in the coordinates of a recentred target."""
    users, centredness = users_target(target), centredness_of(target) or {}

    def one(x: jax.Array) -> jax.Array:
        by_site = users.program.unravel(x)
        for name, fn in _scored(users, x):
            by_site[name] = score_of(fn, biject_to(fn.support)(by_site[name]))
        for name, at in _standing(users, x, centredness):
            by_site[name] = at.coordinates(by_site[name])
        return users.program.ravel(by_site)

    return jax.vmap(one)(x)


def _standing(
    users: Target, x: jax.Array, centredness: Centredness
) -> Iterator[tuple[str, Centring]]:
    """Of each loc-scale site its name, and its distribution given the other sites."""
    trace = trace_at(users, x)
    for name, c in centredness.items():
        yield name, centring(trace[name]["fn"], c)


def _scored(users: Target, x: jax.Array) -> Iterator[tuple[str, Any]]:
    """Of each site with a normal score its name and distribution, which no latent site enters."""
    trace = trace_at(users, x) if users.program.scored else {}
    for name in users.program.scored:
        yield name, bare_distribution(trace[name]["fn"])
