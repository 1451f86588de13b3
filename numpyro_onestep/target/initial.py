"""Initial points by NumPyro's strategies, and the sites to blame where there is none."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.initialization import init_to_uniform

from numpyro_onestep.compilation import compiled
from numpyro_onestep.target.prior import prior_points
from numpyro_onestep.target.program import float_dtype
from numpyro_onestep.target.traces import site_log_densities

if TYPE_CHECKING:
    from numpyro_onestep.target.base import Target

# One batch size for every request, so that one compiled function serves them all.
_BATCH = 16
# NumPyro gives up after 100 tries per chain. Draws of the prior are tried longer: where these fail,
# nothing is left to try.
_TRIES_WITHOUT_SUCCESS, _TRIES_OF_PRIOR = 112, 1024


def valid_points(target: Target, rng_key: jax.Array, num: int) -> jax.Array:
    """Draw `num` points with finite log-density and gradient: `(num, dim)`.

    Uniform points around zero, where the user has no wish, may all be out of a support that the
    data decide: draws of the prior take their place.
    """
    if num < 1:
        raise ValueError(f"expected at least one initial point; got {num}")
    points = _valid(target, rng_key, num, _TRIES_WITHOUT_SUCCESS, of_prior=False)
    if points is None and _is_uniform(target):
        points = _valid(target, rng_key, num, _TRIES_OF_PRIOR, of_prior=True)
    if points is None:
        raise ValueError(_blame(target, _propose(target, rng_key, of_prior=False)[0][0]))
    return points


def _valid(
    target: Target, rng_key: jax.Array, num: int, patience: int, *, of_prior: bool
) -> jax.Array | None:
    """The points; None after so many failures in a row."""
    found: list[np.ndarray] = []
    count, failures, tries = 0, 0, 0
    while count < num:
        key = jax.random.fold_in(rng_key, tries)
        points, log_densities, gradients = _propose(target, key, of_prior=of_prior)
        tries += 1
        valid = np.isfinite(log_densities) & np.isfinite(gradients).all(axis=1)
        failures = 0 if valid.any() else failures + _BATCH
        if failures >= patience:
            return None
        found.append(np.asarray(points)[valid])
        count += int(valid.sum())
    return jnp.asarray(np.concatenate(found)[:num])


@compiled(many_loops=True, static_argnames="of_prior")
def _propose(
    target: Target, rng_key: jax.Array, *, of_prior: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Points by the strategy, or of the prior, with log-density and gradient there.

    `(n, dim)`, `(n,)`, `(n, dim)`.
    """
    if of_prior:
        points = prior_points(target, rng_key, _BATCH)
    else:
        keys = jax.random.split(rng_key, _BATCH)
        points = jax.vmap(functools.partial(_propose_one, target))(keys)
    log_densities, gradients = jax.vmap(jax.value_and_grad(target.log_density))(points)
    return points, log_densities, gradients


def _is_uniform(target: Target) -> bool:
    strategy = target.program.init_strategy
    return getattr(strategy, "func", strategy) is init_to_uniform


def _propose_one(target: Target, key: jax.Array) -> jax.Array:
    program = target.program
    strategy = program.init_strategy
    if _is_uniform(target):
        # Directly in unconstrained coordinates, as NumPyro does: no replay, no round trip.
        radius = getattr(strategy, "keywords", {}).get("radius", 2)
        return jax.random.uniform(key, (program.dim,), float_dtype(), minval=-radius, maxval=radius)
    args, kwargs = target.arguments
    model = handlers.substitute(handlers.seed(program.plain_model, key), substitute_fn=strategy)
    trace = handlers.trace(model).get_trace(*args, **kwargs)
    return program.ravel(
        {
            name: biject_to(trace[name]["fn"].support).inv(trace[name]["value"])
            for name in program.unconstrained_shapes
        }
    )


def _blame(target: Target, x: jax.Array) -> str:
    """Sentence naming the first site that makes log-density or gradient at `x` not finite."""
    start = "no initial point has a finite log-density and gradient: "
    for name, part in target.site_slices.items():
        if not np.isfinite(np.asarray(x[part])).all():
            return f"{start}the initial value of site '{name}' is not inside its support"
    for name, value in _site_log_densities(target, x).items():
        if not np.isfinite(value):
            return (
                f"{start}site '{name}' has the log-density {float(value)}. "
                "Look for NaN or infinite values in the data it uses, for data outside its "
                "support, and for initial values (init_strategy) that it excludes"
            )
    for name, gradient in _site_gradients(target, x).items():
        if not np.isfinite(gradient).all():
            return (
                f"{start}the gradient of site '{name}' is not finite although its log-density is. "
                "Look for NaN in masked data, and for functions without a derivative there"
            )
    return (
        f"{start}no single site is to blame; the Jacobian of a constraining transform or the sum "
        f"over discrete sites is not finite (log-density {float(target.log_density(x))})"
    )


# Jitted with the data as arguments: for values it knows, NumPyro's validation would stop at the
# first bad parameter without naming its site.
_site_log_densities = compiled()(site_log_densities)


@compiled()
def _site_gradients(target: Target, x: jax.Array) -> dict[str, jax.Array]:
    # One site at a time: a joint Jacobian would carry 0 * inf from one site to the others.
    def gradient(name: str) -> jax.Array:
        return jax.grad(lambda point: site_log_densities(target, point)[name])(x)

    return OrderedDict((name, gradient(name)) for name in site_log_densities(target, x))
