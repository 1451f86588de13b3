"""The coordinates to temper in, and the way back from them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from numpyro_onestep.exploration.tempering import MANY_DIMENSIONS, Particles
from numpyro_onestep.target import (
    Target,
    can_be_recentred,
    constant_centredness,
    recentred,
    recentred_points,
    unconditional,
    users_points,
    users_target,
)


def path_of(target: Target) -> Target:
    """The target in the coordinates to temper in.

    In many dimensions, non-centred ones: in any others the prior of a hierarchy is a funnel, where
    a scale hardly moves while the many sites below it stand still. Nothing is standardised there:
    the prior's draws would be taken far away.
    """
    target = unconditional(target)
    users = users_target(target)
    if target.dim < MANY_DIMENSIONS or target is users or not can_be_recentred(users):
        return target
    return recentred(target, constant_centredness(users, 0.0))


def in_coordinates(target: Target, path: Target, particles: Particles) -> Particles:
    """The particles of the path in the coordinates of the target."""
    if path is target:
        return particles
    x, log_det = users_points(path, jnp.asarray(particles.points))
    points = recentred_points(target, x)
    _, log_det_back = users_points(target, points)
    log_density = particles.log_density - np.asarray(log_det) + np.asarray(log_det_back)
    return particles._replace(points=np.asarray(points), log_density=log_density)
