r"""The published stand-in for a log-determinant: traces, added up along the steps.

The deterministic-flow weight of arXiv 2512.05251 replaces `log|det dT/dz|` of the map by

    sum over steps of  tr(dT_k/dx - I) = sum of dt [ beta D / 2 + sqrt(beta) / 2 tr(du/dx) ],

the divergence of the probability flow times the length of the step, by default with one Hutchinson
probe and with the score that enters the control held constant. It is the log-determinant in the
limit of many steps only, and then only if the score is differentiated as well. In few steps it is
another number: `tr(J - I) >= log det J` wherever the eigenvalues of `J` are real and positive.
It is here for comparison; no weight in use is made of it.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from numpyro_onestep import tails
from numpyro_onestep.flow.base import Flow, apply
from numpyro_onestep.flow.controlled import ControlledSteps
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density


@dataclasses.dataclass(frozen=True)
class TraceLogDet:
    """How the trace of a step is taken.

    Attributes:
        num_probes: Hutchinson probes, random signs; None for the exact trace.
        differentiate_score: whether the score that enters the control is differentiated too.
    """

    num_probes: int | None = 1
    differentiate_score: bool = False

    def __post_init__(self) -> None:
        """Refuses a number of probes that is none."""
        if self.num_probes is not None and self.num_probes < 1:
            raise ValueError(f"expected num_probes to be positive or None; got {self.num_probes}")

    def probes(self, rng_key: jax.Array, like: jax.Array) -> jax.Array:
        """Random signs `(num_probes, dim)` for `like: (dim,)`, or all unit vectors."""
        dim = like.shape[-1]
        if self.num_probes is None:
            return jnp.eye(dim, dtype=like.dtype)
        return jax.random.rademacher(rng_key, (self.num_probes, dim), like.dtype)

    def of_step(
        self,
        flow: Flow,
        params: Params,
        density: Density | None,
        x: jax.Array,
        t: jax.Array,
        d: jax.Array,
        probes: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Image `(dim,)` of `x: (dim,)` under one step, and the trace of `J - I` there."""
        step = flow.step(params, t, d, density)

        def move(x: jax.Array) -> jax.Array:
            if isinstance(step, ControlledSteps):
                return step.one(x, t, d, freeze_score=not self.differentiate_score)
            return apply(step, x)

        image, push = jax.linearize(move, x)
        quadratic = jax.vmap(lambda v: jnp.vdot(v, push(v) - v))(probes)
        return image, quadratic.sum() if self.num_probes is None else quadratic.mean()

    def along(
        self,
        flow: Flow,
        params: Params,
        density: Density | None,
        z: jax.Array,
        num_steps: int,
        rng_key: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Image `(dim,)` of `z: (dim,)` in `num_steps` equal steps, and the traces added up."""

        def body(carry: tuple[jax.Array, jax.Array], i: jax.Array) -> tuple[tuple, None]:
            x, total = carry
            probes = self.probes(jax.random.fold_in(rng_key, i), x)
            d = jnp.asarray(1.0 / num_steps, x.dtype)
            x, trace = self.of_step(flow, params, density, x, i * d, d, probes)
            return (x, total + trace), None

        steps = flow.steps(params, num_steps, density)
        first = (z, jnp.zeros((), z.dtype))
        if isinstance(steps, ControlledSteps):
            first = (tails.stretch(steps.tail, z), tails.log_slope(steps.tail, z).sum())
        (x, total), _ = jax.lax.scan(body, first, jnp.arange(num_steps))
        return x, total
