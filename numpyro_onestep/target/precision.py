"""What single precision does to a log-density.

Differences of large terms, such as those of log-gamma functions of a large concentration, leave
nothing but rounding errors in single precision: hundreds of nats where the posterior has none. An
optimiser from a near start never sees such a place; a search of the whole prior does.
"""

from __future__ import annotations

import dataclasses
from weakref import WeakSet

import jax
import numpy as np

from numpyro_onestep.compilation import compiled
from numpyro_onestep.target.base import Target
from numpyro_onestep.target.batches import over_points
from numpyro_onestep.target.program import Program, float_dtype

# Share of a log-density that the rounding of its terms explains: some eighty units in the last
# place.
_ROUNDING = 1e-5
# Programs that have no double precision: nobody tries again.
_SINGLE_ONLY: WeakSet[Program] = WeakSet()


def in_double(target: Target) -> Target:
    """The target with its log-density computed in double precision."""
    return dataclasses.replace(target, in_double=True)


def rounding_errors(
    target: Target, x: np.ndarray, log_density: np.ndarray | None = None
) -> np.ndarray:
    """By how much a log-density is off in single precision, beyond its ordinary rounding.

    Args:
        target: of which it is.
        x: points in single precision, `(n, dim)`.
        log_density: there, as computed, `(n,)`; None for what single precision says.

    Returns:
        In nats, `(n,)`; infinite where double precision finds no number, 0 where `log_density` is
        none, in double precision itself, and for a model that cannot be run in double precision.
    """
    if float_dtype() == np.float64 or target.program in _SINGLE_ONLY:
        return np.zeros(len(x))
    if log_density is None:
        log_density = log_density_at(dataclasses.replace(target, in_double=False), x)
    found = np.asarray(log_density, np.float64)
    try:
        exact = np.asarray(log_density_at(in_double(target), x), np.float64)
    except Exception:  # noqa: BLE001 - the user's code, with types that it has not seen before.
        _SINGLE_ONLY.add(target.program)
        return np.zeros(len(found))
    both = np.isfinite(found) & np.isfinite(exact)
    error = np.full(len(found), np.inf)
    error[both] = np.abs(found[both] - exact[both]) - _ROUNDING * np.abs(exact[both])
    return np.where(np.isfinite(found), np.maximum(error, 0.0), 0.0)


def can_be_double(target: Target) -> bool:
    """Whether there is a program in double precision for the log-density and its derivatives.

    They are part of programs that are otherwise single, which cannot hold an array in double
    precision that the model closes over, as NumPy's are by default.
    """
    wide = in_double(target)

    def log_density(data: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
        return dataclasses.replace(wide, data=data).log_density(x)

    gradient = jax.grad(log_density, argnums=(0, 1), allow_int=True)
    try:
        jax.jit(gradient).lower(target.data, np.zeros(target.dim, float_dtype()))
    except Exception:  # noqa: BLE001 - as above.
        return False
    return True


@compiled()
def log_density_at(target: Target, x: jax.Array) -> jax.Array:
    """Of the target at `x: (n, dim)`, `(n,)`."""
    return over_points(target.log_density, target, x)
