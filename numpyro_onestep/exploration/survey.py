r"""A survey of the prior: as many of its draws as cost little, with their densities.

Whatever dominates the posterior and holds a hundred-thousandth of the prior's mass is among a
quarter of a million draws. How many there are depends on how much one evaluation of the model
computes, not on a clock, so that a key stands for one result.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep.compilation import compiled
from numpyro_onestep.target import Target, over_points

# Draws per call: what tempering holds at once, or a little more.
_CHUNK = 1024
_MAX_CHUNKS = 256
# Values that all evaluations together compute (a second on one core, about), and those that the
# draws themselves may fill.
_MAX_COMPUTED = 2**29
_MAX_KEPT = 2**24
# For a loop whose end depends on values, and for a value that Python computes.
_UNKNOWN_LENGTH = 30
_CALLBACK = 100_000
# A result of n x n values takes n^3 steps.
_FACTORISATIONS = {"cholesky", "eigh", "lu", "qr", "svd", "triangular_solve"}


class Survey(NamedTuple):
    """Draws of the prior, `n` of each.

    Attributes:
        points: unconstrained, `(n, dim)`.
        log_prior: log-density of the prior, `(n,)`.
        log_density: of the target, `(n,)`.
        num_affordable: evaluations that cost as much as a survey may; fewer than there are draws
            where the model is dear.
    """

    points: np.ndarray
    log_prior: np.ndarray
    log_density: np.ndarray
    num_affordable: int

    @property
    def undefined_share(self) -> float:
        """Share of the draws, in [0, 1], at which the target's log-density is NaN."""
        return float(np.mean(np.isnan(self.log_density) & np.isfinite(self.log_prior)))


def survey(target: Target, initial: jax.Array, rng_key: jax.Array) -> Survey:
    """Draws from the prior; the first ones give way to `initial: (k, dim)`, k up to 1024."""
    cost = values_computed(jax.make_jaxpr(_draw)(target, initial, rng_key, 0).jaxpr)
    num = min(_MAX_COMPUTED // cost, _MAX_KEPT // (_CHUNK * target.dim), _MAX_CHUNKS)
    drawn = [_draw(target, initial, jax.random.fold_in(rng_key, i), i) for i in range(max(num, 1))]
    x, log_prior, log_density = (
        np.concatenate([np.asarray(a) for a in part]) for part in zip(*drawn, strict=True)
    )
    return Survey(x, log_prior, log_density, _CHUNK * _MAX_COMPUTED // cost)


@compiled()
def _draw(
    target: Target, initial: jax.Array, rng_key: jax.Array, i: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x = target.prior_points(rng_key, _CHUNK)
    x = jnp.where(i == 0, x.at[: len(initial)].set(initial), x)
    both = over_points(lambda p: (target.log_prior(p), target.log_density(p)), target, x)
    return x, *both


def values_computed(jaxpr: Any) -> int:
    """Number of scalars that a program computes; matrices' products and factors by their steps."""
    total = 0
    for equation in jaxpr.eqns:
        parts = [p for value in equation.params.values() for p in _programs(value)]
        if parts:
            unknown = _UNKNOWN_LENGTH if equation.primitive.name == "while" else 1
            length = equation.params.get("length", unknown)
            total += length * sum(map(values_computed, parts))
        else:
            results = sum(math.prod(getattr(v.aval, "shape", ())) for v in equation.outvars)
            total += _steps_per_value(equation) * results
    return total


def _steps_per_value(equation: Any) -> int:
    name = equation.primitive.name
    shape: tuple[int, ...] = ()
    if equation.invars:
        shape = getattr(equation.invars[0].aval, "shape", ())
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return math.prod(shape[axis] for axis in contracted)
    if name in _FACTORISATIONS:
        return shape[-1]
    return _CALLBACK if "callback" in name else 1


def _programs(value: Any) -> list[Any]:
    """The programs in a parameter of an equation."""
    if isinstance(value, tuple | list):
        return [program for v in value for program in _programs(v)]
    value = getattr(value, "jaxpr", value)
    return [value] if hasattr(value, "eqns") else []
