r"""A control network: a perceptron beside a Langevin term, conditioned on time and step size.

    u(x; t, d) = clip(NN(x, e(t, d))) + c(t, d) clip(g(x))

(Zhang and Chen, arXiv 2111.15141, with the step size of arXiv 2512.05251), where `g` is a gradient
that the caller supplies and `c` a factor per coordinate. Both parts are clipped, coordinate by
coordinate, so `u` is bounded whatever the parameters and whatever the target: a step that adds a
multiple of `u` to a positive multiple of `x` can be shrunk continuously to the identity, which is
what makes signed weights exact without invertibility.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from numpyro_onestep.networks.gated_residual import Params


class _Control(nnx.Module):
    def __init__(
        self, dim: int, width: int, depth: int, num_frequencies: int, rngs: nnx.Rngs
    ) -> None:
        self.num_frequencies = num_frequencies
        zeros = nnx.initializers.zeros
        self.embedding = nnx.Linear(4 * num_frequencies + 2, width, rngs=rngs)
        self.input = nnx.Linear(dim, width, rngs=rngs)
        self.hidden = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(depth - 1)])
        # Zero output weights and c = 1: training starts from the Langevin term alone.
        self.output = nnx.Linear(width, dim, kernel_init=zeros, rngs=rngs)
        self.share = nnx.Linear(width, dim, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: jax.Array, t: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
        frequencies = jnp.pi * 2.0 ** jnp.arange(self.num_frequencies)
        angles = jnp.concatenate([frequencies * t, frequencies * d])
        features = jnp.concatenate([jnp.stack([t, d]), jnp.sin(angles), jnp.cos(angles)])
        embedded = jax.nn.gelu(self.embedding(features))
        h = self.input(x) + embedded
        for layer in self.hidden:
            h = layer(jax.nn.gelu(h)) + embedded
        return self.output(jax.nn.gelu(h)), 1.0 + self.share(embedded)


@dataclasses.dataclass(frozen=True)
class ControlNetwork:
    """Perceptron and Langevin term of a control.

    Attributes:
        dim: length of a point.
        width: hidden units per layer.
        depth: hidden layers.
        num_frequencies: of the Fourier features of time and of step size, pi, 2 pi, 4 pi, ...
        bound: clip of the perceptron's output, per coordinate.
        gradient_bound: clip of the gradient, per coordinate.
        langevin: whether the gradient enters at all.
    """

    dim: int
    width: int = 64
    depth: int = 2
    num_frequencies: int = 4
    bound: float = 1e4
    gradient_bound: float = 1e2
    langevin: bool = True

    def init(self, rng_key: jax.Array) -> Params:
        """Parameters with which the control is the clipped gradient."""
        return _init(self, rng_key)

    def control(
        self,
        params: Params,
        x: jax.Array,
        t: jax.Array,
        d: jax.Array,
        gradient: jax.Array | None = None,
    ) -> jax.Array:
        """The control `(dim,)` at `x: (dim,)` for scalars `t`, `d`; `gradient: (dim,)`."""
        graphdef, state = self._structure
        state = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(state, params)
        network, share = nnx.merge(graphdef, state)(x, t, d)
        u = jnp.clip(network, -self.bound, self.bound)
        if gradient is None:
            return u
        # Where the density has no gradient there is nothing to follow.
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
        return u + share * jnp.clip(gradient, -self.gradient_bound, self.gradient_bound)

    def _module(self, rngs: nnx.Rngs) -> _Control:
        return _Control(self.dim, self.width, self.depth, self.num_frequencies, rngs)

    @functools.cached_property
    def _structure(self) -> tuple[Any, Any]:
        abstract = nnx.eval_shape(lambda: self._module(nnx.Rngs(0)))
        return nnx.split(abstract, nnx.Param)


@functools.partial(jax.jit, static_argnums=0)
def _init(network: ControlNetwork, rng_key: jax.Array) -> Params:
    return nnx.to_pure_dict(nnx.state(network._module(nnx.Rngs(rng_key)), nnx.Param))
