"""Whether the integral of a model's density is the evidence p(y).

Three kinds of statement make it something else. Improper or masked latent sites leave a prior that
does not integrate to one, so the number is refused. Factors and powers of densities give an
integral that may be what the user is after, so it is kept and named for what it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.distribution import ImproperUniform, MaskedDistribution

from numpyro_onestep.target.program import float_dtype
from numpyro_onestep.target.traces import (
    Site,
    Trace,
    is_factor,
    observed_twice,
    parts,
    varying,
)

if TYPE_CHECKING:
    from numpyro_onestep.target.base import Target

Evidence = Literal["normalised", "noted", "refused"]

_SENTENCES = {
    "improper": "the prior of {sites} is improper, so no evidence exists",
    "masked": "the prior of {sites} is masked, so it does not integrate to one",
    "factor": "the evidence includes the factor statements {sites}, which need not be normalised",
    "scaled_latent": "the prior of {sites} is scaled to a power, so it does not integrate to one",
    "scaled_observed": "the likelihood of {sites} is scaled to a power",
    "computed": "the observed value of {sites} is computed from latent sites",
    "held": "the parameters {sites} have no prior and are held at their initial values",
}
_REFUSED = ("improper", "masked")


def classify(target: Target, trace: Trace) -> tuple[Evidence, str]:
    """Kind of the target's evidence and the note that goes with it.

    Args:
        target: the target.
        trace: a trace of its model with concrete values.

    Returns:
        "normalised", "noted" or "refused", and a sentence naming the sites.
    """
    found: dict[str, list[str]] = {kind: [] for kind in _SENTENCES}
    for name, site in trace.items():
        if site["type"] == "sample":
            for kind in _findings(site):
                found[kind].append(name)
    found["computed"] = [
        name for name, values in observed_twice(target).items() if varying(values).any()
    ]
    found["held"] = _influential_parameters(target)
    clauses = [
        _SENTENCES[kind].format(sites=", ".join(f"'{site}'" for site in sites))
        for kind, sites in found.items()
        if sites
    ]
    if not clauses:
        return "normalised", ""
    note = "; ".join(clauses)
    refused = any(found[kind] for kind in _REFUSED)
    return ("refused" if refused else "noted"), f"{note[0].upper()}{note[1:]}."


def _findings(site: Site) -> Iterator[str]:
    scaled = site["scale"] is not None and not _everywhere(np.equal(site["scale"], 1))
    if is_factor(site):
        yield "factor"
    elif site["is_observed"]:
        # A masked observation is missing data and integrates out: no finding.
        if scaled:
            yield "scaled_observed"
    else:
        made_of = list(parts(site["fn"]))
        if any(isinstance(part, ImproperUniform) for part in made_of):
            yield "improper"
        if any(isinstance(p, MaskedDistribution) and not _everywhere(p._mask) for p in made_of):
            yield "masked"
        if scaled:
            yield "scaled_latent"


def _everywhere(condition: Any) -> bool:
    return bool(np.all(np.asarray(condition)))


def _influential_parameters(target: Target) -> list[str]:
    """Held parameters that the density depends on (random modules overwrite theirs)."""
    program = target.program
    if not program.fixed:
        return []
    x = jax.random.uniform(jax.random.key(0), (program.dim,), float_dtype(), minval=-1, maxval=1)
    leaves, structure = jax.tree.flatten(program.fixed)
    floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]

    def log_density(values: list[Any]) -> jax.Array:
        filled = iter(values)
        fixed = jax.tree.unflatten(
            structure,
            [next(filled) if f else leaf for f, leaf in zip(floating, leaves, strict=True)],
        )
        return dataclasses.replace(program, fixed=fixed).log_density(target.data, x)

    values = [jnp.asarray(leaf) for f, leaf in zip(floating, leaves, strict=True) if f]
    gradients = iter(jax.grad(log_density)(values))
    influence = [bool(np.any(np.asarray(next(gradients)) != 0)) if f else False for f in floating]
    by_site = jax.tree.unflatten(structure, influence)
    return [name for name, flags in by_site.items() if any(jax.tree.leaves(flags))]
