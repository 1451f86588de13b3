r"""NUTS in the coordinates of a trained sampler: the learned map as a transport.

Where `x = m + L T(z)` is a bijection, the posterior of x is that of z under

    log p(z) = log gamma(m + L T(z)) + log|L| + log|det dT/dz|,

which is close to a standard normal if the map is any good: a funnel's neck and a banana's bend are
gone, and the No-U-Turn sampler moves freely (NeuTra; Hoffman et al. 2019, arXiv 1903.03704). Chains
are NumPyro's own, vectorised, and run in blocks, so that they can be stopped between them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpyro.infer.hmc import hmc

from numpyro_onestep import flow as flows
from numpyro_onestep.preconditioner import Affine, log_density
from numpyro_onestep.target import Target
from numpyro_onestep.training import standard_normal_log_density

# Transitions per compiled call: the grain of time limits and budgets.
BLOCK = 50
# Per block of the network: far out in the mouth of a funnel, sixteen leave two points in a hundred.
_NEWTON_STEPS = 64
# Newton's residual, in units of z, up to which a preimage counts as found.
_MAX_RESIDUAL = 1e-2


@struct.dataclass
class Transport:
    """A map from coordinates that suit NUTS to the posterior's.

    Attributes:
        target: the model.
        affine: the preconditioner.
        steps: the map of the flow; None for the preconditioner alone, which is always a bijection.
    """

    target: Target
    affine: Affine
    steps: Any = None

    def log_density(self, z: jax.Array) -> jax.Array:
        """Of the posterior at one point `z: (dim,)`, unnormalised: its integral is Z."""
        if self.steps is None:
            return log_density(self.target, self.affine, z)
        image, log_det, _ = flows.apply_with_log_det(self.steps, z)
        return log_density(self.target, self.affine, image) + log_det

    def forward(self, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Unconstrained points of the model at `z: (n, dim)`, log|det| and sign of the Jacobian."""
        return _forward(self, z)

    def log_weight(self, z: jax.Array) -> jax.Array:
        """`log_density` over that of a standard normal, at `z: (n, dim)`, `(n,)`."""
        return _log_weight(self, z)

    def inverse(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`z` of unconstrained points `x: (n, dim)`, and whether it was found, `(n,)`."""
        image = self.affine.inverse(x)
        if self.steps is None:
            return image, jnp.isfinite(image).all(-1)
        return _inverse(self.steps, image)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of the No-U-Turn sampler.

    Attributes:
        num_warmup: transitions in which step size and scales are adapted.
        target_accept_prob: what the step size is adapted to.
        max_tree_depth: doublings of a trajectory at the most.
    """

    num_warmup: int = 500
    target_accept_prob: float = 0.98
    max_tree_depth: int = 10


class Chains(NamedTuple):
    """States of `c` chains after warm-up, `n` of each, on the host.

    Attributes:
        z: `(c, n, dim)`.
        log_density: of the posterior in z, `(c, n)`, float64.
        log_weight: `log_density` over that of a standard normal, `(c, n)`: the weight that the
            sampler gives to the point.
        diverging: `(c, n)`.
        num_steps: gradients of the target, `(c, n)`.
        accept_prob: `(c, n)`.
    """

    z: np.ndarray
    log_density: np.ndarray
    log_weight: np.ndarray
    diverging: np.ndarray
    num_steps: np.ndarray
    accept_prob: np.ndarray


class Walkers:
    """Chains that are advanced in blocks and remember their states after warm-up."""

    def __init__(
        self, transport: Transport, start: jax.Array, rng_key: jax.Array, settings: Settings
    ) -> None:
        """See the class; `start: (c, dim)`."""
        self.transport = transport
        self.settings = settings
        self.num_gradients = 0
        self._state = _start(transport, start, jax.random.split(rng_key, len(start)), settings)
        self._blocks: list[tuple[np.ndarray, ...]] = []
        self._num_warm = 0

    def advance(self, num: int, may_go_on: Callable[[], bool]) -> bool:
        """Warms up if that is due and adds `num` states, rounded up to blocks.

        `may_go_on` is asked before each block; returns whether it always agreed.
        """
        wanted = self.num_states + num
        while self._num_warm < self.settings.num_warmup or self.num_states < wanted:
            if not may_go_on():
                return False
            self._state, states = _advance(self.transport, self._state, self.settings)
            states = tuple(np.swapaxes(np.asarray(part), 0, 1) for part in states)
            self.num_gradients += int(states[3].sum())
            if self._num_warm < self.settings.num_warmup:
                self._num_warm += BLOCK
            else:
                self._blocks.append(states)
        return True

    @property
    def num_states(self) -> int:
        """States per chain so far."""
        return BLOCK * len(self._blocks)

    def chains(self) -> Chains:
        """All states after warm-up.

        Raises:
            ValueError: before there is any.
        """
        if not self._blocks:
            raise ValueError("expected states after warm-up; got none")
        z, potential, diverging, num_steps, accept_prob = (
            np.concatenate(parts, axis=1) for parts in zip(*self._blocks, strict=True)
        )
        value = -potential.astype(np.float64)
        # On the host, where float64 is to be had.
        square = (z.astype(np.float64) ** 2).sum(-1)
        base = -0.5 * (square + z.shape[-1] * np.log(2.0 * np.pi))
        return Chains(z, value, value - base, diverging, num_steps, accept_prob)


def _kernel(transport: Transport) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return hmc(lambda z: -transport.log_density(z), algo="NUTS")


def _first_state(
    init: Callable[..., Any], start: jax.Array, key: jax.Array, settings: Settings
) -> Any:
    return init(
        start,
        settings.num_warmup,
        target_accept_prob=settings.target_accept_prob,
        max_tree_depth=settings.max_tree_depth,
        rng_key=key,
    )


@functools.partial(jax.jit, static_argnames="settings")
def _start(transport: Transport, start: jax.Array, keys: jax.Array, settings: Settings) -> Any:
    init, _ = _kernel(transport)
    return jax.vmap(lambda z, key: _first_state(init, z, key, settings))(start, keys)


@functools.partial(jax.jit, static_argnames="settings")
def _advance(transport: Transport, state: Any, settings: Settings) -> tuple[Any, tuple]:
    """One block: all chains' state, and what is kept of each transition, `(BLOCK, c, ...)`."""
    init, sample = _kernel(transport)
    # NumPyro's kernel takes its settings from the call that starts it; nothing is computed.
    jax.eval_shape(
        lambda z, key: _first_state(init, z, key, settings), state.z[0], state.rng_key[0]
    )

    def step(state: Any, _: None) -> tuple[Any, tuple]:
        state = jax.vmap(sample)(state)
        kept = (
            state.z,
            state.potential_energy,
            state.diverging,
            state.num_steps,
            state.accept_prob,
        )
        return state, kept

    return jax.lax.scan(step, state, None, length=BLOCK)


@jax.jit
def _forward(transport: Transport, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    zero = jnp.zeros(len(z), z.dtype)
    image, log_det, sign = z, zero, zero + 1.0
    if transport.steps is not None:
        mapped = jax.vmap(flows.apply_with_log_det, in_axes=(None, 0))(transport.steps, z)
        image, log_det, sign = mapped
    return transport.affine.forward(image), log_det + transport.affine.log_det_at(image), sign


@jax.jit
def _log_weight(transport: Transport, z: jax.Array) -> jax.Array:
    return jax.vmap(transport.log_density)(z) - standard_normal_log_density(z)


@jax.jit
def _inverse(steps: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    z, residual = jax.vmap(lambda y: flows.invert(steps, y, _NEWTON_STEPS))(image)
    return z, residual < _MAX_RESIDUAL
