r"""A Gaussian fit in bent coordinates, for the skewness of a posterior.

Let `r = log gamma - log N(z; 0, I)` in the coordinates of the fit. Where its part of Hermite degree
3 is small, the map `y + u(y)` carries N(0, I) to a density that has it, to first order, if

    z u(z) - div u(z) = 1/6 sum_ijk A_ijk He_ijk(z),    A_ijk = E[d_i d_j d_k r(z)].

Many u do. Each term may be left to any one of its coordinates, so u can be made of maps whose
determinants and inverses cost nothing: the coordinates are halved again and again, a term belongs
to the first halving that parts its indices, and there the coordinate that is alone is displaced by
the pair on the other side,

    u_b = 1/2 sum_aa' A_aa'b (z_a z_a' - delta_aa'),

one side after the other: additive couplings (Dinh et al., arXiv 1410.8516), which leave volumes as
they are. What is left are terms of one coordinate alone, which bend it by itself, and of different
coordinates in one of the last cells, which are left out. For a sum of ridges, `A = sum_r c_r v_r
(x) v_r (x) v_r`, the sum over pairs is a square, `c_r v_rb ((v_r z)^2 - |v_r|^2)`.

The map is a bijection whatever the ridges are, and where squares are bounded so are displacements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from numpyro_onestep.preconditioner.base import Affine

# Halvings; one of the last cells holds a sixteenth of all coordinates.
_MAX_LEVELS = 4
# Where projections on a ridge cease to grow: beyond the draws of thousands of points.
_LIMIT = 4.0
# Of the curve along one coordinate, `sqrt(s^2 + y^2)`: its scale s, and by quadrature its mean and
# second Hermite coefficient under a standard normal.
_SCALE, _NUM_NODES = 2.0, 80
_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(_NUM_NODES)
_SHARES = _SHARES / _SHARES.sum()
_MEAN = float(_SHARES @ np.hypot(_SCALE, _NODES))
_COEFFICIENT = float(0.5 * _SHARES @ (np.hypot(_SCALE, _NODES) * (_NODES**2 - 1.0)))


@struct.dataclass
class Bent(Affine):
    """The map `x = mean + factor @ (y + u(y))`.

    Attributes:
        directions: the unit vectors `v_r`, `(num_ridges, dim)`; zeros bend nothing.
        weights: `c_r`, `(num_ridges,)`.
    """

    directions: jax.Array
    weights: jax.Array

    @jax.jit
    def forward(self, z: jax.Array) -> jax.Array:
        """Bent coordinates to unconstrained ones; `(..., dim)`."""
        return super().forward(jnp.vectorize(self._bend_one, signature="(d)->(d)")(z))

    @jax.jit
    def inverse(self, x: jax.Array) -> jax.Array:
        """Unconstrained coordinates, `(dim,)` or `(n, dim)`, to bent ones."""
        return jnp.vectorize(self._unbend_one, signature="(d)->(d)")(super().inverse(x))

    @jax.jit
    def log_det_at(self, z: jax.Array) -> jax.Array:
        """Log-volume of the map at `z: (..., dim)`, `(...)`."""
        bow = self._bow
        slope = jnp.cosh(bow) + z / jnp.hypot(_SCALE, z) * jnp.sinh(bow)
        return jnp.log(slope).sum(axis=-1) + self.log_det

    def _bend_one(self, y: jax.Array) -> jax.Array:
        bow = self._bow
        z = y * jnp.cosh(bow) + (jnp.hypot(_SCALE, y) - _MEAN) * jnp.sinh(bow)
        for lower, upper, cells in self._couplings():
            a, b = jnp.moveaxis(_halved(z, cells), 1, 0)
            b = b + self._displacement(a, lower, upper)
            a = a + self._displacement(b, upper, lower)
            z = jnp.stack([a, b], axis=1).reshape(-1)[: len(y)]
        return z

    def _unbend_one(self, z: jax.Array) -> jax.Array:
        for lower, upper, cells in reversed(list(self._couplings())):
            a, b = jnp.moveaxis(_halved(z, cells), 1, 0)
            a = a - self._displacement(b, upper, lower)
            b = b - self._displacement(a, lower, upper)
            z = jnp.stack([a, b], axis=1).reshape(-1)[: self.directions.shape[1]]
        bow = self._bow
        # z + mean sinh(bow) = s sinh(asinh(y / s) + bow)
        return _SCALE * jnp.sinh(jnp.arcsinh((z + _MEAN * jnp.sinh(bow)) / _SCALE) - bow)

    @property
    def _bow(self) -> jax.Array:
        """How much each coordinate is bent by itself (Jones and Pewsey, 2009), `(dim,)`."""
        own = (self.weights[:, None] * self.directions**3).sum(axis=0) / 6.0
        return jnp.arcsinh(own / _COEFFICIENT)

    def _couplings(self) -> Iterator[tuple[jax.Array, jax.Array, int]]:
        """From the last halving to the first: ridges on both sides, and how many cells there are.

        Neighbours are parted first: they may have more to do with each other than others.
        """
        dim = self.directions.shape[1]
        for level in reversed(range(min(_MAX_LEVELS, math.ceil(math.log2(dim))))):
            halves = jax.vmap(lambda v, cells=2**level: _halved(v, cells))(self.directions)
            yield halves[:, :, 0], halves[:, :, 1], 2**level

    def _displacement(self, source: jax.Array, here: jax.Array, there: jax.Array) -> jax.Array:
        """What `source: (half, cells)` displaces on the other side, of that shape."""
        along = jnp.einsum("rhc,hc->rc", here, source)
        along = along / (1.0 + (along / _LIMIT) ** 4) ** 0.25
        size = self.weights[:, None] * (along**2 - (here**2).sum(axis=1))
        return 0.5 * jnp.einsum("rc,rhc->hc", size, there)


def unbent(affine: Affine, num_ridges: int) -> Bent:
    """The same map, with room for that many bends, on the host."""
    dim, dtype = len(affine.mean), affine.mean.dtype
    directions: Any = np.zeros((num_ridges, dim), dtype)
    weights: Any = np.zeros(num_ridges, dtype)
    return Bent(affine.mean, affine.factor, directions, weights)


def bent_as(affine: Affine, other: Bent) -> Bent:
    """The same fit with the bends of another."""
    return Bent(affine.mean, affine.factor, other.directions, other.weights)


def _halved(z: jax.Array, cells: int) -> jax.Array:
    """Coordinates `(dim,)` by half of a cell, side and cell, `(half, 2, cells)`; zeros fill up."""
    return jnp.pad(z, (0, -len(z) % (2 * cells))).reshape(-1, 2, cells)
