r"""What the skewness of a posterior asks of a map, from gradients alone.

In the coordinates of a Gaussian fit let `r = log gamma - log N(z; 0, I)`, small where the fit is
good. To first order in r, the map `z + u(z)` that carries N(0, I) to the posterior follows the part
of Hermite degree n of r along its gradient divided by n; a good fit has left nothing of degree 1
and 2. Degree 3 gives

    u(z) = A : (z z^T - I) / 6,    A_ijk = E[d_i d_j d_k r(z)],    z ~ N(0, I),

and by Stein's identity, with `g = grad r`,

    A_ijk = E[g_i (z_j z_k - delta_jk)].

A sum of ridges, `A = sum_k c_k v_k (x) v_k (x) v_k`, turns u into bends along single directions,
which hidden units can make: `u = sum_k c_k v_k ((v_k z)^2 - 1) / 6`. It is found by alternating
least squares (Kolda and Bader, 2009, section 3.4), which also leaves out most of the noise of A.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from numpyro_onestep.compilation import compiled

_SWEEPS = 60
# Keeps directions that come to lie on each other from taking weights of opposite signs.
_RIDGE_PENALTY = 1e-3
# Longest residual gradient that counts in full, in units of sqrt(dim): a single point in a steep
# region must not bend the map everywhere.
_MAX_RESIDUAL = 5.0


@compiled()
def ridges(base: jax.Array, score: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Directions and weights of the bends that skewness asks for.

    Args:
        base: draws from N(0, I), `(num_batches, n, dim)`.
        score: gradients of the target's log-density there, `(num_batches, n, dim)`.
        start: directions to start from, `(num, dim)`.

    Returns:
        Unit vectors `v_k`, `(num, dim)`, and `c_k / 6`, `(num,)`.
    """
    num, dim = base.shape[0] * base.shape[1], base.shape[2]

    def add(tensor: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        z, g = batch[0], _limited(batch[0] + batch[1])
        products = (z[:, :, None] * z[:, None, :] - jnp.eye(dim, dtype=z.dtype)).reshape(len(z), -1)
        return tensor + (g.T @ products).reshape(dim, dim, dim) / num, None

    tensor, _ = jax.lax.scan(add, jnp.zeros((dim, dim, dim), base.dtype), (base, score))
    # Symmetric in its last two places already.
    tensor = (tensor + tensor.transpose(1, 0, 2) + tensor.transpose(2, 1, 0)) / 3.0
    penalty = _RIDGE_PENALTY * jnp.eye(len(start), dtype=base.dtype)

    def along(v: jax.Array) -> jax.Array:
        squares = (v[:, :, None] * v[:, None, :]).reshape(len(v), -1)
        return squares @ tensor.reshape(dim, -1).T

    def sweep(_: int, v: jax.Array) -> jax.Array:
        new = _normalised(jnp.linalg.solve((v @ v.T) ** 2 + penalty, along(v)))
        # Half of the way: all three factors move at once, and full steps overshoot.
        return _normalised(v + new * jnp.sign((new * v).sum(axis=1, keepdims=True)))

    v = jax.lax.fori_loop(0, _SWEEPS, sweep, _normalised(start))
    weights = jnp.linalg.solve((v @ v.T) ** 3 + penalty, (along(v) * v).sum(axis=1))
    return v, weights / 6.0


def _limited(residual: jax.Array) -> jax.Array:
    """Residual gradients `(n, dim)` of bounded length; zero where unknown."""
    length = jnp.linalg.norm(residual, axis=1, keepdims=True)
    limit = _MAX_RESIDUAL * residual.shape[1] ** 0.5
    shortened = residual * jnp.minimum(1.0, limit / jnp.maximum(length, 1e-6))
    return jnp.where(jnp.isfinite(length), shortened, 0.0)


def _normalised(vectors: jax.Array) -> jax.Array:
    """Unit vectors `(num, dim)`."""
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
