"""Whether the integral of a model's density is the evidence p(y).

Improper or masked latent sites leave a prior that does not integrate to one, so the number is
refused. Factors and powers of densities give an integral that may be what the user is after, so it
is kept and named for what it is.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep.target.observation import Flags
from numpyro_onestep.target.program import Program, float_dtype

Evidence = Literal["normalised", "noted", "refused"]

_REFUSED = {
    "improper": "the prior of {sites} is improper, so no evidence exists",
    "masked": "the prior of {sites} is masked, so it does not integrate to one",
}
_NOTED = {
    "factor": "the evidence includes the factor statements {sites}, which need not be normalised",
    "scaled_prior": "the prior of {sites} is scaled to a power, so it does not integrate to one",
    "scaled_likelihood": "the likelihood of {sites} is scaled to a power",
    "computed": "the observed value of {sites} is computed from latent sites",
    "held": "the parameters {sites} have no prior and are held at their initial values",
}


def classify(flags: dict[str, Flags], held: tuple[str, ...]) -> tuple[Evidence, str]:
    """Kind of a model's evidence and the note that goes with it.

    Args:
        flags: what its sample sites are, from `observe`.
        held: parameters without a prior, from `influential_parameters`.

    Returns:
        "normalised", "noted" or "refused", and a sentence naming the sites.
    """
    findings: dict[str, list[str]] = {"held": list(held)}
    for name, flag in flags.items():
        kind = _finding(flag)
        for key in kind:
            findings.setdefault(key, []).append(name)
    clauses = [
        sentence.format(sites=", ".join(f"'{site}'" for site in findings[kind]))
        for kind, sentence in (_REFUSED | _NOTED).items()
        if findings.get(kind)
    ]
    if not clauses:
        return "normalised", ""
    note = "; ".join(clauses)
    refused = not _REFUSED.keys().isdisjoint(findings)
    return ("refused" if refused else "noted"), f"{note[0].upper()}{note[1:]}."


def _finding(flag: Flags) -> list[str]:
    if flag["factor"]:
        return ["factor"]
    if flag["observed"]:
        # A masked observation is missing data and integrates out: not worth a note.
        kinds = {"scaled_likelihood": flag["scaled"], "computed": flag["computed"]}
    else:
        kinds = {
            "improper": flag["improper"],
            "masked": flag["masked"],
            "scaled_prior": flag["scaled"],
        }
    return [kind for kind, present in kinds.items() if present]


def influential_parameters(program: Program) -> tuple[str, ...]:
    """Fixed `numpyro.param` sites that the density depends on.

    Random modules (`random_flax_module` and the like) declare parameters too but overwrite them
    with sampled ones; those do not matter.

    Args:
        program: a program that holds all arguments of its model as constants.
    """
    x = jax.random.uniform(jax.random.key(0), (program.dim,), float_dtype(), minval=-1, maxval=1)
    leaves, structure = jax.tree.flatten(program.fixed)
    floating = [i for i, v in enumerate(leaves) if jnp.issubdtype(jnp.result_type(v), jnp.floating)]

    def log_density(values: list[jax.Array]) -> jax.Array:
        filled = list(leaves)
        for i, value in zip(floating, values, strict=True):
            filled[i] = value
        fixed = jax.tree.unflatten(structure, filled)
        return dataclasses.replace(program, fixed=fixed).log_density((), x)

    influence = [False] * len(leaves)
    gradients = jax.jit(jax.grad(log_density))([jnp.asarray(leaves[i]) for i in floating])
    for i, gradient in zip(floating, gradients, strict=True):
        influence[i] = bool(np.any(np.asarray(gradient) != 0))
    by_site = jax.tree.unflatten(structure, influence)
    return tuple(name for name, flags in by_site.items() if any(jax.tree.leaves(flags)))
