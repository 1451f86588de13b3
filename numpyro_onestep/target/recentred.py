r"""Targets in coordinates between the centred and the non-centred ones of their loc-scale sites.

A recentred target is the target of the reparametrised model (see `target.loc_scale`), with the
centredness `c`, one number per element, among its data: programs compiled for one value serve all.
Its vectors have the layout of the user's. Nothing of it shows outside: `users_points` leads back to
the coordinates of the user's model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from numpyro.distributions import biject_to

from numpyro_onestep.target.base import Target
from numpyro_onestep.target.loc_scale import Centredness, loc_and_scale
from numpyro_onestep.target.program import float_dtype
from numpyro_onestep.target.traces import trace_at


def can_be_recentred(target: Target) -> bool:
    """Whether the model has loc-scale sites that depend on other latent sites."""
    return bool(target.program.loc_scale)


def constant_centredness(target: Target, c: float) -> Centredness:
    """The same for all sites: 1 for the coordinates of the user's model."""
    shapes = target.program.constrained_shapes
    return {name: jnp.full(shapes[name], c, float_dtype()) for name in target.program.loc_scale}


def recentred(target: Target, centredness: Centredness) -> Target:
    """The target in the coordinates of this centredness; itself where there is none."""
    if not centredness:
        return target
    program, users = target.program, target.program.users
    data = target.data
    if users is None:
        program, users = program.recentred, program
    else:
        data = data[: len(data) - len(users.loc_scale)]
    data = (*data, *(centredness[name] for name in users.loc_scale))
    return dataclasses.replace(target, data=data, program=program)


def centredness_of(target: Target) -> Centredness:
    """The centredness of a recentred target; empty for any other."""
    users = target.program.users
    if users is None:
        return {}
    return dict(zip(users.loc_scale, target.data[-len(users.loc_scale) :], strict=True))


def users_target(target: Target) -> Target:
    """The target in the coordinates of the user's model, whatever kind of target this is."""
    users = target.program.users
    if users is None:
        return target
    data = target.data[: len(target.data) - len(users.loc_scale)]
    return Target(data, users, target.evidence, target.evidence_note)


def starting_points(target: Target, rng_key: jax.Array, num: int) -> jax.Array:
    """The initial points `(num, dim)` of the user's model, in the coordinates of the target."""
    return recentred_points(target, users_target(target).initial_points(rng_key, num))


def recentred_points(target: Target, x: jax.Array) -> jax.Array:
    """Points `(n, dim)` of the user's model in the coordinates of the target, of either kind."""
    return x if target.program.users is None else _recentred_points(target, x)


def users_points(target: Target, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Points of a target, of either kind, in the coordinates of the user's model.

    Args:
        target: recentred or not.
        u: its points `(n, dim)`.

    Returns:
        `x: (n, dim)`, and `log|det dx/du|`, `(n,)`.
    """
    if target.program.users is None:
        return u, jnp.zeros(len(u), u.dtype)
    return _users_points(target, u)


@jax.jit
def _users_points(target: Target, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same for a recentred target."""
    users, centredness = users_target(target), centredness_of(target)

    def one(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = target.constrain_one(u)
        by_site = users.program.unravel(u)
        for name, support in users.program.loc_scale.items():
            by_site[name] = biject_to(support).inv(values[name])
        x = users.program.ravel(by_site)
        log_det = jnp.zeros((), x.dtype)
        for name, _, scale, _ in _standing(users, x):
            log_det += jnp.sum((1.0 - centredness[name]) * jnp.log(scale))
        return x, log_det

    return jax.vmap(one)(u)


@jax.jit
def _recentred_points(target: Target, x: jax.Array) -> jax.Array:
    """Points `(n, dim)` of the user's model in the coordinates of a recentred target."""
    users, centredness = users_target(target), centredness_of(target)

    def one(x: jax.Array) -> jax.Array:
        by_site = users.program.unravel(x)
        for name, loc, scale, value in _standing(users, x):
            c = centredness[name]
            by_site[name] = c * loc + scale ** (c - 1.0) * (value - loc)
        return users.program.ravel(by_site)

    return jax.vmap(one)(x)


def _standing(users: Target, x: jax.Array) -> Iterator[tuple[str, jax.Array, jax.Array, jax.Array]]:
    """Of each loc-scale site its name, loc, scale, and unconstrained value, all of one shape."""
    trace, by_site = trace_at(users, x), users.program.unravel(x)
    for name in users.program.loc_scale:
        value = by_site[name]
        loc, scale = (jnp.broadcast_to(a, value.shape) for a in loc_and_scale(trace[name]["fn"]))
        yield name, loc, scale, value
