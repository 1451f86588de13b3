r"""A soft partition of the target into one component per mode.

With Gaussian fits `N(m_c, S_c)` of shares `omega_c`, the responsibilities

    rho(c|x) = omega_c N(x; m_c, S_c) / sum_k omega_k N(x; m_k, S_k)

add up to one everywhere, so the components `gamma(x) rho(c|x)` add up to the target, and their
integrals `Z_c` to its evidence, whatever the fits are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import Target


@struct.dataclass
class Partition:
    """Responsibilities of `k` Gaussian fits.

    Attributes:
        mean: `(k, dim)`.
        whitener: inverse of the factor of each covariance, `(k, dim, dim)`.
        log_height: log of `omega_c N(m_c; m_c, S_c)` up to a common constant, `(k,)`.
    """

    mean: jax.Array
    whitener: jax.Array
    log_height: jax.Array

    @classmethod
    def of(cls, fits: Sequence[Affine], log_share: Sequence[float]) -> Partition:
        """The partition by these fits; their shares need not be normalised."""
        factor = np.stack([np.asarray(fit.factor, np.float64) for fit in fits])
        volume = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        log_height = np.asarray(log_share, np.float64) - volume
        dtype = fits[0].mean.dtype
        return cls(
            mean=jnp.stack([fit.mean for fit in fits]),
            whitener=jnp.asarray(np.linalg.inv(factor), dtype),
            log_height=jnp.asarray(log_height - log_height.max(), dtype),
        )

    def log_responsibility(self, x: jax.Array) -> jax.Array:
        """`log rho(c|x)` of all components at `x: (dim,)`, `(k,)`."""
        z = jnp.einsum("kij,kj->ki", self.whitener, x - self.mean)
        return jax.nn.log_softmax(self.log_height - 0.5 * (z**2).sum(axis=1))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["data", "partition", "label"],
    meta_fields=["program", "evidence", "evidence_note", "in_double"],
)
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Component(Target):
    """A target times the responsibility of one component.

    Partition and label are data: what is compiled for one component serves all.

    Attributes:
        partition: of the target.
        label: which component, `()`.
    """

    partition: Partition
    label: jax.Array

    @classmethod
    def of(cls, target: Target, partition: Partition, label: int) -> Component:
        """The component of a target with this label."""
        fields = {field.name: getattr(target, field.name) for field in dataclasses.fields(Target)}
        return cls(**fields, partition=partition, label=jnp.asarray(label))

    def log_density(self, x: jax.Array) -> jax.Array:
        """Log-density of the component at one point: `(dim,) -> ()`."""
        return super().log_density(x) + self.partition.log_responsibility(x)[self.label]

    def log_responsibility(self, points: jax.Array) -> jax.Array:
        """Log of the component's share of the target at `points: (n, dim)`, `(n,)`."""
        return jax.vmap(self.partition.log_responsibility)(points)[:, self.label]
