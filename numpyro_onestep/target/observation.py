"""What a model's sites are for its present data: observed, factor, masked, scaled, improper.

Computed by one jitted function of the target, so that new data are looked at without a new trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.distribution import MaskedDistribution

from numpyro_onestep.compilation import compiled
from numpyro_onestep.target.program import float_dtype
from numpyro_onestep.target.traces import Site, is_factor, is_improper, parts, trace_at

if TYPE_CHECKING:
    from numpyro_onestep.target.base import Target

Flags = dict[str, bool]


def observe(target: Target) -> tuple[dict[str, Flags], dict[str, np.ndarray]]:
    """Look at the sites of the model at two points of the latent space.

    Returns:
        Flags by sample site: `observed`, `factor`, `improper`, `masked` (somewhere), `scaled`
        (somewhere), `computed` (its observed value depends on latent sites); and the values of the
        observed sites with NaN where they are computed, as in models that fill in missing values.
    """
    points = np.random.default_rng(0).uniform(-1.0, 1.0, (2, target.dim)).astype(float_dtype())
    flags_twice, values_twice = jax.tree.map(np.asarray, _observe(target, points))
    flags = {
        name: {flag: bool(twice.any()) for flag, twice in site.items()}
        for name, site in flags_twice.items()
    }
    values = {}
    for name, (first, second) in values_twice.items():
        differ = first != second
        if first.dtype.kind == "f":
            differ &= ~(np.isnan(first) & np.isnan(second))
        flags[name]["computed"] = bool(differ.any())
        if not differ.any():
            values[name] = first
        elif not differ.all():
            values[name] = np.where(differ, np.nan, first)
    return flags, values


@compiled()
def _observe(
    target: Target, points: jax.Array
) -> tuple[dict[str, dict[str, jax.Array]], dict[str, jax.Array]]:
    def one(x: jax.Array) -> tuple[dict[str, dict[str, jax.Array]], dict[str, jax.Array]]:
        sites = {
            name: site for name, site in trace_at(target, x).items() if site["type"] == "sample"
        }
        values = {
            name: jnp.asarray(site["value"])
            for name, site in sites.items()
            if site["is_observed"] and not is_factor(site)
        }
        return {name: _flags(site) for name, site in sites.items()}, values

    return jax.vmap(one)(points)


def _flags(site: Site) -> dict[str, jax.Array]:
    made_of = list(parts(site["fn"]))
    masks = [~jnp.all(part._mask) for part in made_of if isinstance(part, MaskedDistribution)]
    scale: Any = 1 if site["scale"] is None else site["scale"]
    flags = {
        "observed": site["is_observed"],
        "factor": is_factor(site),
        "improper": is_improper(site),
        "masked": jnp.any(jnp.array([False, *masks])),
        "scaled": jnp.any(jnp.asarray(scale) != 1),
    }
    return {name: jnp.asarray(flag) for name, flag in flags.items()}
