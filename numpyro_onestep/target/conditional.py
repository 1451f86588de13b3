r"""Targets in which many values are standardised given all others.

Let `x = (theta, eta)`, the elements of eta independent given theta, as the members of a plate often
are. With `g` and `-h` the first and second derivatives of the log-density along each of them at
`(theta, c)`, c some fixed centre,

    eta = c + g / h + u / sqrt(h)

is one step of Newton from there, with the width that the curvature says: u given theta is the
residual of the Laplace approximation (Tierney and Kadane, 1986; Rue, Martino and Chopin, 2009).
Where the log-density is quadratic in eta, u is a standard normal that theta says nothing about,
however narrow eta is there: a scale that pins many values, in their prior or in their likelihood,
leaves no neck. The map is a bijection with the volume `-1/2 sum log h` in any case, so that weights
are exact whether the posterior is like that or not. Osmundsen, Kleppe and Liesenfeld (2021,
arXiv 1812.07929) sample such coordinates by Hamiltonian Monte Carlo.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from numpyro_onestep.compilation import compiled
from numpyro_onestep.target.base import Target
from numpyro_onestep.target.batches import over_points
from numpyro_onestep.target.centring import bare_distribution
from numpyro_onestep.target.hessians import has_hessians
from numpyro_onestep.target.program import ConditionalProgram
from numpyro_onestep.target.traces import trace_at

GRADIENTS_PER_CONDITIONAL = 12
"""What a gradient costs in such coordinates, in gradients of the model: by operations, about.

It takes a gradient and a product with a Hessian to get there, and the derivatives of these.
"""
# Products of the Hessian with two vectors, as a share of the largest entry, within which values are
# independent given the others.
_TOLERANCE = 1e-3
# Values of a site from which on their volume may vary much.
_LEAST_VALUES = 4
# Derivatives of models with more dimensions take longer than chains do.
_MAX_DIM = 128


@struct.dataclass
class Conditional:
    """Which values are standardised, and around what.

    Attributes:
        centre: where derivatives are taken, `(num,)`.
        precision: the usual curvature there, `(num,)`.
        sites: of the target without, whose values those are, in the order of its coordinates;
            static.
    """

    centre: jax.Array
    precision: jax.Array
    sites: tuple[str, ...] = struct.field(pytree_node=False)


def conditional(target: Target, given: Conditional | None) -> Target:
    """The target with these values standardised; None: as it is."""
    if given is None:
        return target
    data = (*target.data, given.centre, given.precision)
    return dataclasses.replace(target, data=data, program=target.program.conditional(given.sites))


def conditional_of(target: Target) -> Conditional | None:
    """What is standardised in a target; None for nothing."""
    if not isinstance(target.program, ConditionalProgram):
        return None
    centre, precision = target.data[-2:]
    return Conditional(centre, precision, target.program.sites)


def unconditional(target: Target) -> Target:
    """The target without standardised values, whatever kind of target this is."""
    if not isinstance(target.program, ConditionalProgram):
        return target
    data, program = target.data[:-2], target.program.inner
    return Target(data, program, target.evidence, target.evidence_note, target.in_double)


@compiled()
def unconditional_points(target: Target, u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Points `u: (n, dim)` of such a target in the coordinates of the one without.

    Returns:
        `x: (n, dim)`, and `log|det dx/du|`, `(n,)`.
    """
    program: Any = target.program

    def one(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = target.sites_of(lambda t, u: program.unstandardised(t.data, u), u)
        return found["x"], found["log_det"]

    return over_points(one, target, u)


@compiled()
def conditional_points(target: Target, x: jax.Array) -> jax.Array:
    """The inverse: points `x: (n, dim)` of the target without in those of such a target."""
    program: Any = target.program

    def one(x: jax.Array) -> jax.Array:
        return target.sites_of(lambda t, x: program.standardised(t.data, x), x)["u"]

    return over_points(one, target, x)


def find_conditional(
    target: Target, points: np.ndarray, least_spread: float
) -> tuple[Conditional | None, int]:
    """Sites whose values are independent given all others, and narrower where those are elsewhere.

    Of the sites of an array, the largest first, those of which that holds together.

    Args:
        target: without standardised values, in single precision where that is the default.
        points: of the posterior, in its coordinates, `(n, dim)`.
        least_spread: standard deviation of the log-volume of those values given all others, in
            nats, from which on it is worth it.

    Returns:
        None where there is no such site, or too little curvature somewhere for a step of Newton,
        and the number of gradients that it took to find out; a product with a Hessian is two.
    """
    slices = _candidates(target, points[0]) if target.dim <= _MAX_DIM else {}
    if not slices or not has_hessians(target, points[0]):
        return None, 0
    num_gradients = 2 * len(points) * (2 * len(slices) + 1)
    factors = np.random.default_rng(0).standard_normal(target.dim)
    is_local = np.zeros(target.dim, bool)
    chosen = []
    for name in sorted(slices, key=lambda name: slices[name].start - slices[name].stop):
        trial = is_local.copy()
        trial[slices[name]] = True
        if _are_independent(target, points, trial, factors):
            is_local = trial
            chosen.append(name)
    centre = points.mean(axis=0)
    precision = -_products(target, np.where(is_local, centre, points), is_local)
    is_curved = np.isfinite(precision).all(axis=0) & (precision > 0.0).all(axis=0)
    sites = tuple(name for name in slices if name in chosen and is_curved[slices[name]].all())
    if not sites:
        return None, num_gradients
    local = np.concatenate([np.arange(target.dim)[slices[name]] for name in sites])
    log_volume = -0.5 * np.log(precision[:, local]).sum(axis=1)
    if log_volume.std() < least_spread:
        return None, num_gradients
    usual = np.median(precision[:, local], axis=0).astype(centre.dtype)
    return Conditional(jnp.asarray(centre[local]), jnp.asarray(usual), sites), num_gradients


def _candidates(target: Target, x: np.ndarray) -> dict[str, slice]:
    """Places of the sites of many values that their own distribution does not tie together."""
    found: dict[str, slice] = {}

    def look(x: jax.Array) -> None:
        trace = trace_at(target, x)
        for name, part in target.site_slices.items():
            if name in trace and part.stop - part.start >= _LEAST_VALUES:
                if not bare_distribution(trace[name]["fn"]).event_dim:
                    found[name] = part

    jax.eval_shape(look, x)
    return found


def _are_independent(
    target: Target, points: np.ndarray, is_local: np.ndarray, factors: np.ndarray
) -> bool:
    """Whether the Hessian has no entries between different values of these.

    Its product with a vector of ones then tells those with all others.
    """
    ones = _products(target, points, is_local)[:, is_local]
    others = _products(target, points, is_local * factors)[:, is_local]
    apart = np.abs(others - factors[is_local] * ones)
    return bool((apart <= _TOLERANCE * np.abs(ones).max(axis=1, keepdims=True)).all())


def _products(target: Target, points: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Of the Hessian with one vector `(dim,)` at all points, `(n, dim)`."""
    found = _products_at(target, points, along.astype(points.dtype))
    return np.asarray(found, np.float64)


@compiled()
def _products_at(target: Target, points: jax.Array, along: jax.Array) -> jax.Array:
    gradient = jax.grad(target.log_density)
    return over_points(lambda x: jax.jvp(gradient, (x,), (along,))[1], target, points)
