r"""The skewness of a posterior from gradients alone, as a sum of ridges.

In the coordinates of a Gaussian fit, with `r = log gamma - log N(z; 0, I)`, Stein's identity gives
the third derivatives that bends are made of (see `preconditioner.bent`) from `g = grad r`,

    A_ijk = E[d_i d_j d_k r(z)] = E[g_i (z_j z_k - delta_jk)],    z ~ N(0, I).

A sum of ridges, `A = sum_r c_r v_r (x) v_r (x) v_r`, is found by alternating least squares (Kolda
and Bader, 2009, section 3.4), which leaves out most of the noise of A. The tensor itself is never
needed, only `A : v v^T = E[g ((v z)^2 - 1)]`. Once there are ridges, what they explain of g is
known without sampling, and the noise is that of the rest alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep.compilation import compiled

# Sweeps without and with what the ridges explain taken out of the gradients.
_SWEEPS, _REFINED_SWEEPS = 20, 20
# Keeps directions that come to lie on each other from taking weights of opposite signs, where there
# are more of them than dimensions.
_RIDGE_PENALTY = 3e-2
# Longest residual gradient that counts in full, in units of sqrt(dim): a single point in a steep
# region must not bend the map everywhere.
_MAX_RESIDUAL = 5.0
SHARES = (0.5, 0.75, 1.0)
"""How much of the ridges is tried: the more a posterior differs from its fit, the more does the
first order overshoot."""


def find_ridges(base: np.ndarray, score: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """`ridges` from directions at random, on the host."""
    shape = (num, base.shape[-1])
    start = np.random.default_rng(0).standard_normal(shape).astype(base.dtype)
    directions, weights = ridges(base, score, start)
    return np.asarray(directions), np.asarray(weights)


@compiled()
def ridges(base: jax.Array, score: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Directions and weights of the ridges.

    Args:
        base: draws from N(0, I), `(n, dim)`.
        score: gradients of the target's log-density there, `(n, dim)`.
        start: directions to start from, `(num, dim)`.

    Returns:
        Unit vectors `v_r`, `(num, dim)`, and `c_r`, `(num,)`.
    """
    penalty = _RIDGE_PENALTY * jnp.eye(len(start), dtype=base.dtype)
    residual = _limited(base + score)
    residual = residual - residual.mean(axis=0)

    def along(v: jax.Array, gradient: jax.Array) -> jax.Array:
        return ((base @ v.T) ** 2 - 1.0).T @ gradient / len(base)

    def closer(v: jax.Array, found: jax.Array) -> jax.Array:
        new = _normalised(jnp.linalg.solve((v @ v.T) ** 2 + penalty, found))
        # Half of the way: all three factors move at once, and full steps overshoot.
        return _normalised(v + new * jnp.sign((new * v).sum(axis=1, keepdims=True)))

    def weights_of(v: jax.Array, found: jax.Array) -> jax.Array:
        return jnp.linalg.solve((v @ v.T) ** 3 + penalty, (found * v).sum(axis=1))

    def sweep(_: int, v: jax.Array) -> jax.Array:
        return closer(v, along(v, residual))

    def refined(_: int, ridge: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        v, weights = ridge
        rest = residual - (0.5 * weights * ((base @ v.T) ** 2 - 1.0)) @ v

        def found(new: jax.Array) -> jax.Array:
            return along(new, rest) + (weights * (new @ v.T) ** 2) @ v

        new = closer(v, found(v))
        return new, weights_of(new, found(new))

    v = jax.lax.fori_loop(0, _SWEEPS, sweep, _normalised(start))
    return jax.lax.fori_loop(0, _REFINED_SWEEPS, refined, (v, weights_of(v, along(v, residual))))


def _limited(residual: jax.Array) -> jax.Array:
    """Residual gradients `(n, dim)` of bounded length; zero where unknown."""
    length = jnp.linalg.norm(residual, axis=1, keepdims=True)
    limit = _MAX_RESIDUAL * residual.shape[1] ** 0.5
    shortened = residual * jnp.minimum(1.0, limit / jnp.maximum(length, 1e-6))
    return jnp.where(jnp.isfinite(length), shortened, 0.0)


def _normalised(vectors: jax.Array) -> jax.Array:
    """Unit vectors `(num, dim)`."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
