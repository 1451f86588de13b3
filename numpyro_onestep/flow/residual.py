r"""The flow map: step-conditioned, with exact log-determinants, scores and inverses.

`T(z; t, d)` carries a point from time `t` to `t + d` in one evaluation of the network. One step is
`T(z; 0, 1)`; `k` steps compose `T(.; i/k, 1/k)`. A step is a stack of gated residual blocks (see
`networks`) whose log-gates, displacements and tails are scaled by the length of the step,
`kappa(t, d) / kappa(0, 1)`, so `T(z; t, 0) = z`. A composition of steps is again a stack of blocks,
and everything below works for any stack.

The log-determinant is that of the whole discrete map, so the importance weights of the draws are
exact for every number of steps; nothing is integrated along a path.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep import log_det, tails
from numpyro_onestep.flow.base import (
    NEWTON_STEPS,
    Solve,
    apply,
    apply_with_log_det,
    base_dim,
    identity,
    invert,
    jacobian_size,
    newton_step,
)
from numpyro_onestep.log_det import DiagonalPlusLowRank
from numpyro_onestep.networks import Blocks, GatedResidualNetwork, Params
from numpyro_onestep.preconditioner import Density
from numpyro_onestep.schedules import CosineSchedule, Schedule

# Of inverses: steps coordinate by coordinate, and the least slope there, as a share of the gate;
# the distance from which Newton's steps go straight to a point, and that at which they end, in
# roundings.
_COORDINATE_STEPS = 8
_LEAST_SLOPE = 0.2
_NEAR = 0.1
_ROUNDING = 30.0

# Image, log|det| and sign.
_Mapped = tuple[jax.Array, jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class FlowMap:
    """The network together with its schedule; hashable, so that it can be static under `jit`.

    Attributes:
        network: gives the blocks of a step.
        schedule: gives the length of a step.
    """

    network: GatedResidualNetwork
    schedule: Schedule = CosineSchedule()

    @property
    def dim(self) -> int:
        """Length of a point."""
        return self.network.dim

    @property
    def _total_length(self) -> jax.Array:
        return self.schedule.kappa(jnp.zeros(()), jnp.ones(()))

    def init(self, rng_key: jax.Array) -> Params:
        """Parameters of a map that moves nothing, its tails apart."""
        return self.network.init(rng_key)

    def step(
        self, params: Params, t: jax.Array, d: jax.Array, density: Density | None = None
    ) -> Blocks:
        """The blocks of `T(.; t, d)` for scalars `t`, `d`; they do not look at the density."""
        blocks = self.network.blocks(params, t, d)
        share = self.schedule.kappa(t, d) / self._total_length
        return blocks._replace(gain=share * blocks.gain, tail=share * blocks.tail)

    def steps(self, params: Params, num_steps: int = 1, density: Density | None = None) -> Blocks:
        """The blocks of the whole map in `num_steps` equal steps."""
        size = 1.0 / num_steps
        parts = [
            self.step(params, jnp.asarray(i * size), jnp.asarray(size)) for i in range(num_steps)
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    def velocity(
        self, params: Params, x: jax.Array, t: jax.Array, density: Density | None = None
    ) -> jax.Array:
        """`F(x, t) = dT(x; t, d)/dkappa` at `d = 0`: the network's estimate of `x + score_t(x)`."""
        blocks = self.network.blocks(params, t, jnp.zeros(()))
        h = blocks.gain * jnp.tanh(jnp.einsum("bwd,d->bw", blocks.hidden, x) + blocks.bias)
        gate = jnp.einsum("bdw,bw->d", blocks.gate, h)
        shift = jnp.einsum("bdw,bw->d", blocks.shift, h)
        stretch = 0.5 * blocks.tail.sum() * x**3
        return (x * gate + shift + stretch) / self._total_length


def _apply_block(block: Blocks, x: jax.Array) -> jax.Array:
    return _apply_residual(block, tails.stretch(block.tail, x))


def _apply_residual(block: Blocks, x: jax.Array) -> jax.Array:
    h = block.gain * jnp.tanh(block.hidden @ x + block.bias)
    return x * jnp.exp(block.gate @ h) + block.shift @ h


def _jacobian(block: Blocks, x: jax.Array) -> DiagonalPlusLowRank:
    """Of the residual part of a block, at the stretched point."""
    tanh = jnp.tanh(block.hidden @ x + block.bias)
    diagonal = jnp.exp(block.gate @ (block.gain * tanh))
    left = (diagonal * x)[:, None] * block.gate + block.shift
    return DiagonalPlusLowRank(diagonal, left * (block.gain * (1.0 - tanh**2)), block.hidden)


@base_dim.register
def _(blocks: Blocks) -> int:
    return blocks.hidden.shape[-1]


@jacobian_size.register
def _(blocks: Blocks) -> int:
    return 2 * blocks.hidden.shape[-1] * blocks.hidden.shape[-2]


@identity.register
def _(blocks: Blocks) -> Blocks:
    # Zeros of the host: JAX's own are a program for each shape.
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), blocks)


@apply.register
def _(blocks: Blocks, z: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda x, block: (_apply_block(block, x), None), z, blocks)[0]


@apply_with_log_det.register
def _(blocks: Blocks, z: jax.Array) -> _Mapped:
    def body(carry: _Mapped, block: Blocks) -> tuple[_Mapped, None]:
        x, total, sign = carry
        total = total + tails.log_slope(block.tail, x).sum()
        x = tails.stretch(block.tail, x)
        block_sign, log_abs = log_det.slogdet(_jacobian(block, x))
        return (_apply_residual(block, x), total + log_abs, sign * block_sign), None

    zero = jnp.zeros((), z.dtype)
    (x, total, sign), _ = jax.lax.scan(body, (z, zero, zero + 1.0), blocks)
    return x, total, sign


def push_score(blocks: Blocks, z: jax.Array, score: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""Carries the score of a density along the map.

    If `z` has the score `s = grad log p0(z)`, then `x = T(z)` has, block by block,

        grad log q(x) = J^-T (s - grad log|det J|)

    (Vaitl et al., arXiv 2403.15881, recursive form). One inverse of size `min(dim, width)` serves
    the gradient of the determinant and the solve.

    Args:
        blocks: of the map.
        z: points `(n, dim)`.
        score: at these, `(n, dim)`.

    Returns:
        The images `(n, dim)` and their scores `(n, dim)`, NaN where a map is close to a fold.
    """

    def pushed(
        block: Blocks, x: jax.Array, s: jax.Array, inverse: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        (diagonal, left), pull = jax.vjp(lambda x: _jacobian(block, x)[:2], x)
        jacobian = DiagonalPlusLowRank(diagonal, left, block.hidden)
        (gradient,) = pull(log_det.gradient(jacobian, inverse))
        return _apply_residual(block, x), log_det.solve_transposed(jacobian, inverse, s - gradient)

    def body(carry: tuple[jax.Array, jax.Array], block: Blocks) -> tuple[tuple, None]:
        x, s = carry
        x, s = tails.stretch(block.tail, x), tails.push_score(block.tail, x, s)
        inverse = log_det.inverses(jax.vmap(lambda x: log_det.core(_jacobian(block, x))[0])(x))
        return jax.vmap(functools.partial(pushed, block))(x, s, inverse), None

    (x, s), _ = jax.lax.scan(body, (z, score), blocks)
    return x, s


@invert.register
def _(blocks: Blocks, x: jax.Array, num_newton: int = NEWTON_STEPS) -> tuple[jax.Array, jax.Array]:
    # Block by block from the last. Most points have arrived before the first of Newton's steps, and
    # where all that are mapped together have, none is taken.
    def undo(y: jax.Array, block: Blocks) -> tuple[jax.Array, None]:
        x = _by_coordinate(block, y)
        if num_newton:
            x = _by_newton(block, y, x, num_newton)
        return tails.shrink(block.tail, x), None

    z, _ = jax.lax.scan(undo, x, blocks, reverse=True)
    return z, jnp.linalg.norm(apply(blocks, z) - x)


def _by_coordinate(block: Blocks, y: jax.Array) -> jax.Array:
    """Close to the point `(dim,)` that the residual part of a block takes to `y: (dim,)`.

    Newton steps with the diagonal of the Jacobian: a block is near a map of the coordinates one by
    one, and all these steps cost less than a single one with the whole Jacobian.
    """
    gate_slope, shift_slope = (part * block.hidden.T for part in (block.gate, block.shift))

    def closer(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        tanh = jnp.tanh(block.hidden @ x + block.bias)
        h, slope = block.gain * tanh, block.gain * (1.0 - tanh**2)
        gate = jnp.exp(block.gate @ h)
        diagonal = gate * (1.0 + x * (gate_slope @ slope)) + shift_slope @ slope
        miss = y - x * gate - block.shift @ h
        # Where the map turns around a step would lead anywhere.
        return x + miss / jnp.maximum(diagonal, _LEAST_SLOPE * gate), None

    return jax.lax.scan(closer, y, length=_COORDINATE_STEPS)[0]


def _by_newton(block: Blocks, y: jax.Array, near: jax.Array, num_newton: int) -> jax.Array:
    """The point `(dim,)` that the residual part of a block takes to `y`, from one that is near it.

    Where it is not near, the first half of the steps undo a block that grows from nothing to its
    full strength: the preimage leads around bends that a jump would not survive.
    """
    exact = _ROUNDING * float(jnp.finfo(y.dtype).eps) * (1.0 + jnp.linalg.norm(y))

    def missed(x: jax.Array) -> jax.Array:
        return jnp.linalg.norm(_apply_residual(block, x) - y)

    def closer(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, i = state
        strength = jnp.minimum(2.0 * (i + 1) / num_newton, 1.0).astype(y.dtype)
        part = block._replace(gain=strength * block.gain)

        def tangent(x: jax.Array) -> tuple[jax.Array, Solve]:
            return image(x), lambda miss: log_det.solve(_jacobian(part, x), miss)

        image = functools.partial(_apply_residual, part)
        x = newton_step(image, tangent, y, x)
        arrived = (strength == 1.0) & (missed(x) < exact)
        return x, jnp.where(arrived, num_newton, i + 1)

    miss = missed(near)
    is_near = miss < _NEAR
    first = jnp.where(is_near, num_newton // 2, 0)
    start = jnp.where(is_near, near, y), jnp.where(miss < exact, num_newton, first)
    return jax.lax.while_loop(lambda state: state[1] < num_newton, closer, start)[0]
