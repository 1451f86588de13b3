"""Log-likelihood and log-prior at many points: one compiled program for all data of a target."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from numpyro_onestep.compilation import compiled
from numpyro_onestep.target.base import Target
from numpyro_onestep.target.program import float_dtype
from numpyro_onestep.target.traces import is_factor, site_log_densities, trace_at

# Values computed in one call, and points.
_VALUES_PER_CHUNK = 2**22
_POINTS_PER_CHUNK = 4096


def pointwise_log_likelihood(target: Target, x: np.ndarray) -> dict[str, np.ndarray]:
    """Log-density of every observation, as from `numpyro.infer.log_likelihood`.

    For models without discrete latent sites; factors are left out.

    Args:
        target: the model and its data.
        x: unconstrained points `(n, dim)`.

    Returns:
        Arrays `(n, *batch)` by name of the observed site.
    """
    return _in_chunks(_likelihood, target, x)


def log_prior_by_site(target: Target, x: np.ndarray) -> dict[str, np.ndarray]:
    """Log-density of the prior of every latent site, in the model's own coordinates.

    Without the volume of the constraining transform, so that it may be raised to a power.

    Args:
        target: the model and its data.
        x: unconstrained points `(n, dim)`.

    Returns:
        Sums over the elements of each site, `(n,)` by name.

    Raises:
        ValueError: for a model with discrete latent sites, on which a prior may depend.
    """
    if target.enumerates:
        raise ValueError(
            "expected a model without discrete latent sites, since the prior of others may depend "
            "on them; got one with"
        )
    return _in_chunks(_prior, target, x)


_One = Callable[[Target, jax.Array], dict[str, jax.Array]]


def _in_chunks(one: _One, target: Target, x: np.ndarray) -> dict[str, np.ndarray]:
    points = np.asarray(x, float_dtype())
    shapes = jax.eval_shape(one, target, jax.ShapeDtypeStruct((target.dim,), float_dtype()))
    values = sum(leaf.size for leaf in shapes.values())
    chunk = max(1, min(_POINTS_PER_CHUNK, _VALUES_PER_CHUNK // max(values, 1)))
    parts = []
    for start in range(0, len(points), chunk):
        part = points[start : start + chunk]
        # The last chunk is padded: a chunk of its own length would be compiled anew.
        padded = np.pad(part, ((0, chunk - len(part)), (0, 0)), mode="edge")
        found = _many(one, target, padded)
        parts.append({name: np.asarray(value)[: len(part)] for name, value in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in shapes}


def _likelihood(target: Target, x: jax.Array) -> dict[str, jax.Array]:
    return {
        name: site["fn"].log_prob(site["value"])
        for name, site in trace_at(target, x).items()
        if site["type"] == "sample" and site["is_observed"] and not is_factor(site)
    }


def _prior(target: Target, x: jax.Array) -> dict[str, jax.Array]:
    found = site_log_densities(target, x)
    return {name: found[name] for name in target.site_slices}


@compiled(static_argnums=0)
def _many(one: _One, target: Target, x: jax.Array) -> dict[str, jax.Array]:
    return jax.vmap(lambda point: target.sites_of(one, point))(x)
