r"""Networks of the flow map: stacks of gated residual blocks, conditioned on time and step size.

One block moves a point `x: (dim,)` to

    y exp(s(y)) + m(y),    s = P_s h,  m = P_m h,  h = a tanh(Q y + c),    y = x exp(k x^2 / 2),

with `k >= 0` the weight of the tails (see `tails`), `Q: (width, dim)`, `P_s, P_m: (dim, width)` and
`a, c: (width,)`. As `h` is bounded, so are the log-gate `s` and the displacement `m`: whatever the
parameters, a block is a proper map that can be shrunk continuously to the identity, which is what
makes signed weights exact without invertibility (see `importance`). The Jacobian of the residual
part is a diagonal plus a matrix of rank `width`, that of the tails a diagonal, which is what makes
determinants cheap (see `log_det`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from numpyro_onestep.host_random import host_generator

Params = Any
"""A plain pytree of arrays."""


class Blocks(NamedTuple):
    """Gated residual blocks ready for use, stacked along the leading axis in order of application.

    Attributes:
        hidden: `Q`, `(num_blocks, width, dim)`.
        bias: `c`, `(num_blocks, width)`; depends on time and step size.
        gain: `a`, `(num_blocks, width)`; depends on time and step size.
        gate: `P_s`, `(num_blocks, dim, width)`.
        shift: `P_m`, `(num_blocks, dim, width)`.
        tail: `k`, `(num_blocks,)`.
    """

    hidden: jax.Array
    bias: jax.Array
    gain: jax.Array
    gate: jax.Array
    shift: jax.Array
    tail: jax.Array


class _GatedResidual(nnx.Module):
    """Weights of the blocks and the small network that adapts them to `(t, d)`."""

    def __init__(self, dim: int, width: int, num_blocks: int, tail: float, rngs: nnx.Rngs) -> None:
        # Heavy tails belong to the base: the first block has them, the others shape what is there.
        self.tail = (tail / dim**0.5,) + (0.0,) * (num_blocks - 1)
        self.hidden = nnx.Param(jnp.zeros((num_blocks, width, dim)))
        self.bias = nnx.Param(jnp.zeros((num_blocks, width)))
        self.gate = nnx.Param(jnp.zeros((num_blocks, dim, width)))
        self.shift = nnx.Param(jnp.zeros((num_blocks, dim, width)))
        self.features = nnx.Linear(_NUM_FEATURES, 32, rngs=rngs)
        self.adaptation = nnx.Linear(32, 2 * num_blocks * width, rngs=rngs)

    def __call__(self, t: jax.Array, d: jax.Array) -> Blocks:
        adapted = self.adaptation(jnp.tanh(self.features(_time_features(t, d))))
        bias, gain = adapted.reshape((2, *self.bias.shape))
        return Blocks(
            hidden=self.hidden[...],
            bias=self.bias[...] + bias,
            gain=1.0 + jnp.tanh(gain),
            gate=self.gate[...],
            shift=self.shift[...],
            tail=jnp.array(self.tail, self.bias.dtype),
        )


_NUM_FEATURES = 8
# The two units of a bend: slope and offset, for which their sum is close to a parabola over two
# standard deviations; and nodes of the quadrature that says how close.
_RIDGE, _RIDGE_BIAS = 0.5, 0.66
_NUM_NODES = 64


def _time_features(t: jax.Array, d: jax.Array) -> jax.Array:
    angles = jnp.pi * jnp.array([1.0, 2.0])
    parts = [jnp.sin(angles * t), jnp.cos(angles * t), jnp.sin(angles * d), jnp.cos(angles * d)]
    return jnp.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class GatedResidualNetwork:
    """A stack of gated residual blocks whose biases and gains depend on `(t, d)`.

    Attributes:
        dim: length of a point.
        width: hidden units per block; also the largest size of a determinant.
        num_blocks: blocks per step.
        tail: weight of the tails that the first block gives to the base: `k = tail / sqrt(dim)`
            (see `tails`), so that the base is equally far from a normal in every dimension. Fixed,
            as training would give it up for a better fit in the bulk.
    """

    dim: int
    width: int = 64
    num_blocks: int = 3
    tail: float = 0.12

    def init(self, rng_key: jax.Array) -> Params:
        """Parameters of a map without gates and displacements, with random hidden features."""
        # Zero output weights: training starts from the Gaussian of the preconditioner, its tails
        # apart.
        shapes = nnx.to_pure_dict(self._structure[1])
        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        # Random numbers from the host: JAX's own would take a second to compile.
        generator = host_generator(rng_key)
        for weights, scale in (
            (params["hidden"], self.dim**-0.5),
            (params["bias"], 0.5),
            (params["features"]["kernel"], _NUM_FEATURES**-0.5),
        ):
            weights[...] = scale * generator.standard_normal(weights.shape)
        return params

    @property
    def num_ridges(self) -> int:
        """How many directions `bent` has units for: two each, and one per block for the mean."""
        return self.num_blocks * ((self.width - 1) // 2)

    def bent(self, params: Params, directions: np.ndarray, weights: np.ndarray) -> Params:
        r"""Parameters of a map of given bends, on the host; units that it does not need stay.

        In one step it is close to

            z + sum_k w_k v_k ((v_k z)^2 - 1).

        Two units of opposite signs make an even function of `v_k z` that is bounded, and whose mean
        and second Hermite coefficient under a standard normal are those of the square.

        Args:
            params: as `init` gives them.
            directions: the unit vectors `v_k`, `(num, dim)`, at most `num_ridges` of them.
            weights: `w_k`, `(num,)`.
        """
        params = jax.tree.map(np.array, params)
        nodes, shares = np.polynomial.hermite_e.hermegauss(_NUM_NODES)
        shares = shares / shares.sum()
        even = np.tanh(_RIDGE * nodes + _RIDGE_BIAS) - np.tanh(_RIDGE * nodes - _RIDGE_BIAS)
        mean, coefficient = shares @ even, 0.5 * shares @ (even * (nodes**2 - 1.0))
        # The largest ones in turns: every block bends a part of the way.
        order = np.argsort(-np.abs(weights))
        for block in range(self.num_blocks):
            mine = order[block :: self.num_blocks]
            units = slice(2 * len(mine))
            v, out = directions[mine], (weights[mine] / coefficient)[:, None] * directions[mine]
            params["hidden"][block, units] = np.concatenate([_RIDGE * v, _RIDGE * v])
            params["bias"][block, units] = np.repeat([_RIDGE_BIAS, -_RIDGE_BIAS], len(mine))
            params["shift"][block, :, units] = np.concatenate([out, -out]).T
            # A unit that sees nothing is a constant.
            params["hidden"][block, -1], params["bias"][block, -1] = 0.0, 1.0
            params["shift"][block, :, -1] = -mean * out.sum(axis=0) / np.tanh(1.0)
        return params

    def blocks(self, params: Params, t: jax.Array, d: jax.Array) -> Blocks:
        """Blocks for a step of size `d` from time `t` (scalars), before scaling by its length."""
        graphdef, state = self._structure
        state = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graphdef, state)(t, d)

    @functools.cached_property
    def _structure(self) -> tuple[Any, Any]:
        abstract = nnx.eval_shape(
            lambda: _GatedResidual(self.dim, self.width, self.num_blocks, self.tail, nnx.Rngs(0))
        )
        return nnx.split(abstract, nnx.Param)
