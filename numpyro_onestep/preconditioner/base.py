r"""The preconditioner: a Gaussian fit to the posterior, `x = m + L z`.

The flow works in its coordinates. With `z ~ N(0, I)` the map is exact for a Gaussian posterior
before any training.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from numpyro_onestep.target import Centredness, Target

LAST_STEPS = 50
"""Last entries of a fit's account that belong to the finished fit."""
START_SCALE = 0.1
"""Standard deviation of a fit before its first step, where nothing suggests another."""


@struct.dataclass
class Affine:
    """The map `x = mean + factor @ z`.

    Attributes:
        mean: `(dim,)`.
        factor: lower triangular with positive diagonal, `(dim, dim)`.
    """

    mean: jax.Array
    factor: jax.Array

    @jax.jit
    def forward(self, z: jax.Array) -> jax.Array:
        """`z` to unconstrained coordinates; `(..., dim)`."""
        return self.mean + z @ self.factor.T

    @jax.jit
    def inverse(self, x: jax.Array) -> jax.Array:
        """Unconstrained coordinates, `(dim,)` or `(n, dim)`, to `z`."""
        centred = jnp.moveaxis(x - self.mean, -1, 0)
        z = jax.scipy.linalg.solve_triangular(self.factor, centred, lower=True)
        return jnp.moveaxis(z, 0, -1)

    @property
    @jax.jit
    def log_det(self) -> jax.Array:
        """`log|det L|`."""
        return jnp.log(jnp.diagonal(self.factor)).sum()

    @jax.jit
    def log_det_at(self, z: jax.Array) -> jax.Array:
        """Log-volume of the map at `z: (..., dim)`, `(...)`."""
        return jnp.broadcast_to(self.log_det, z.shape[:-1])


class GaussianFit(NamedTuple):
    """A fit with its account in nats.

    Attributes:
        affine: the map from a standard normal to the fit.
        elbo: mean of `log gamma - log q` over the fresh draws of every step, `(num_steps,)`: the
            evidence lower bound.
        spread: half the variance of `log gamma - log q` over the draws of the last steps, `()`: the
            divergence KL(q || p) where that is small, less where draws do not show all of it.
        centredness: of the coordinates that the fit is in; None for those of the user's model.
        num_gradients: of the target that it took, `()`; a Hessian counts as two per dimension.
    """

    affine: Affine
    elbo: jax.Array
    spread: jax.Array
    centredness: Centredness | None
    num_gradients: jax.Array

    @property
    def bound(self) -> float:
        """The lower bound of the finished fit, averaged over the draws of its last steps."""
        return float(np.mean(np.asarray(self.elbo, np.float64)[-LAST_STEPS:]))


def log_density(target: Target, affine: Affine, z: jax.Array) -> jax.Array:
    """Log-density of the target as a function of `z`, volume included; integrates to the same Z."""
    return target.log_density(affine.forward(z)) + affine.log_det_at(z)


@struct.dataclass
class Density:
    """The target as a density of `z`, for flows that follow its gradient.

    Attributes:
        target: the model.
        affine: the preconditioner.
    """

    target: Target
    affine: Affine

    def log_density(self, z: jax.Array) -> jax.Array:
        """Log-density at one point `(dim,)`, volume of the preconditioner included."""
        return log_density(self.target, self.affine, z)

    def score(self, z: jax.Array) -> jax.Array:
        """Its gradient `(dim,)`."""
        return jax.grad(self.log_density)(z)
