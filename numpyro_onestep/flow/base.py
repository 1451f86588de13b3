r"""What every flow and every map made of it can do.

A *flow* turns parameters into maps: one per time and step size. A map is a pytree, and five
functions work on any kind of it: `base_dim`, `apply`, `apply_with_log_det`, `invert`, `identity`.
A new kind of map registers its five functions; nothing else needs to know it.

With `z ~ N(0, I)` in `base_dim` dimensions and `x = T(z)`, the weight

    log w = log gamma(x) + log|det| - log N(z; 0, I)

must satisfy `E[sign w] = \int gamma`. For a deterministic map the determinant is that of its whole
Jacobian. A stochastic map takes its noise from further coordinates of `z`, and what stands in the
determinant's place makes the same sum the log ratio of its path densities.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density
from numpyro_onestep.schedules import Schedule

NEWTON_STEPS = 6
"""Newton steps per block or per step of a map, unless told."""

# The longest Newton step; one step of a map is close to a diagonal affine one.
_NEWTON_RADIUS = 3.0

Solve = Callable[[jax.Array], jax.Array]
"""Divides a vector `(dim,)` by the Jacobian at a point."""


class Flow(Protocol):
    """A network with its schedule; hashable, so that it can be static under `jit`."""

    @property
    def dim(self) -> int:
        """Length of a point."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The lengths of steps."""
        ...

    def init(self, rng_key: jax.Array) -> Params:
        """Parameters to start from."""
        ...

    def step(self, params: Params, t: jax.Array, d: jax.Array, density: Density | None) -> Any:
        """The map from time `t` to `t + d`, in one evaluation of the network."""
        ...

    def steps(self, params: Params, num_steps: int = 1, density: Density | None = None) -> Any:
        """The whole map in `num_steps` equal steps."""
        ...

    def velocity(
        self, params: Params, x: jax.Array, t: jax.Array, density: Density | None
    ) -> jax.Array:
        """`x + score_t(x)`, the rate at which a short step moves per unit of `kappa`."""
        ...


def _unknown(steps: Any) -> TypeError:
    return TypeError(f"expected a map of a flow; got {type(steps).__name__}")


@functools.singledispatch
def base_dim(steps: Any) -> int:
    """Number of standard normal coordinates that the map takes."""
    raise _unknown(steps)


@functools.singledispatch
def jacobian_size(steps: Any) -> int:
    """How many numbers `apply_with_log_det` holds at a time for the Jacobian of one point.

    By default those of a dense matrix, its tangents and its factors.
    """
    return 3 * base_dim(steps) ** 2


@functools.singledispatch
def identity(steps: Any) -> Any:
    """The map that moves nothing, in as many dimensions; where possible of the same kind."""
    raise _unknown(steps)


@functools.singledispatch
def apply(steps: Any, z: jax.Array) -> jax.Array:
    """The map itself: `(base_dim,) -> (dim,)`."""
    raise _unknown(steps)


@functools.singledispatch
def apply_with_log_det(steps: Any, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The map with the determinant of its Jacobian.

    Returns:
        The image `(dim,)`, `log|det dT/dz|` and the sign of the determinant (-1 on a fold).
    """
    raise _unknown(steps)


@functools.singledispatch
def invert(steps: Any, x: jax.Array, num_newton: int = NEWTON_STEPS) -> tuple[jax.Array, jax.Array]:
    """A preimage of `x`, by Newton's method where the map is deterministic.

    A preimage always exists; where the map folds, it is one of several.

    Returns:
        `z: (base_dim,)` and the distance `|T(z) - x|`, which tells whether Newton arrived.
    """
    raise _unknown(steps)


def damped_newton(
    image: Callable[[jax.Array], jax.Array],
    tangent: Callable[[jax.Array], tuple[jax.Array, Solve]],
    y: jax.Array,
    num_newton: int,
) -> jax.Array:
    """A point near `y: (dim,)` that one step of a map takes to `y`, after so many Newton steps.

    Args:
        image: the step of the map.
        tangent: the same with the solver for its Jacobian.
        y: where to arrive, and where to start.
        num_newton: number of steps.
    """
    newton = functools.partial(newton_step, image, tangent, y)
    return jax.lax.scan(lambda x, _: (newton(x), None), y, None, length=num_newton)[0]


def newton_step(
    image: Callable[[jax.Array], jax.Array],
    tangent: Callable[[jax.Array], tuple[jax.Array, Solve]],
    y: jax.Array,
    x: jax.Array,
) -> jax.Array:
    """From `x: (dim,)` closer to the point that `image` takes to `y`; see `damped_newton`."""
    at, solve = tangent(x)
    miss = y - at
    step = solve(miss)
    # A point that a gate brought from far away has far to go back.
    radius = _NEWTON_RADIUS + jnp.linalg.norm(x)
    step = step * jnp.minimum(1.0, radius / jnp.maximum(jnp.linalg.norm(step), 1e-6))
    # Past a bend of the gate a full step overshoots: half of it is taken then.
    next_miss = y - image(x + step)
    worse = ~((next_miss**2).sum() < (miss**2).sum())
    return x + jnp.where(worse, 0.5, 1.0) * step
