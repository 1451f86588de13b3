"""What the diffusion samplers share: a controlled flow, and batches of simulated paths."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from numpyro_onestep.flow import (
    ControlledFlow,
    EulerMaruyama,
    ExponentialIntegrator,
    Kernel,
    simulate,
)
from numpyro_onestep.networks import ControlNetwork, Params
from numpyro_onestep.objectives import PathBatch
from numpyro_onestep.preconditioner import Affine, Density
from numpyro_onestep.schedules import CosineSchedule, EulerCosineSchedule, Schedule
from numpyro_onestep.training.methods.base import Method, finite_only
from numpyro_onestep.training.moves import MovedPoints


def published_settings(prior_scale: float, learning_rate: float) -> dict[str, Any]:
    """What the papers' methods have in common here: path, coordinates and optimiser.

    Euler-Maruyama steps from the prior N(0, s^2 I), cosine rate of the noise in [0.01, 10], rounds
    of 20 updates of 1024 paths, no early end. The rounds are short because a limit of time is
    looked at between them.
    """
    return dict(
        num_path_steps=128,
        schedule=EulerCosineSchedule(),
        kernel=EulerMaruyama(),
        residual=False,
        max_modes=1,
        prior_scale=prior_scale,
        tail=0.0,
        learning_rate=learning_rate,
        max_gradient_norm=1.0,
        batch_size=1024,
        num_updates=20,
        num_annealing=0,
        ema=0.999,
        target_ess=1.0,
        patience=3000,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionMethod(Method):
    """A control network trained on paths that its own stochastic process takes.

    Attributes:
        width: hidden units per layer of the control network.
        depth: its hidden layers.
        num_frequencies: of its Fourier features of time and of step size.
        langevin: whether the gradient of the target enters the control.
        num_path_steps: steps of a path.
        schedule: of the noise.
        kernel: of a path's steps.
        residual: the form of the control (see `flow.controlled`): on what the Gaussian of the
            preconditioner leaves over, or as published.
        prior_scale: standard deviation of the prior N(0, s^2 I) in unconstrained coordinates that
            paths start from, as published; None to work in the coordinates of the Gaussian fit.
        tail: weight of the tails of the base that draws of a flow start from (see `tails`).
        spread: standard deviation of the starts of paths in training, in units of the base's. The
            weights hang on the furthest draws, whose starts are rare: beyond 1 they are less so.
        weight_decay: of AdamW; 0 for Adam.
    """

    width: int = 64
    depth: int = 2
    num_frequencies: int = 4
    langevin: bool = True
    num_path_steps: int = 16
    schedule: Schedule = CosineSchedule()
    kernel: Kernel = ExponentialIntegrator()
    residual: bool = True
    prior_scale: float | None = None
    tail: float = 0.12
    spread: float = 1.0
    weight_decay: float = 0.0
    # The one-step sampler follows what the path learns, after a while.
    patience: int = 8

    def __post_init__(self) -> None:
        """Refuses sizes that make no sense, and a form that the schedule does not serve."""
        super().__post_init__()
        if self.prior_scale is not None and not self.prior_scale > 0.0:
            raise ValueError(f"expected a positive prior_scale or None; got {self.prior_scale!r}")
        if not self.spread > 0.0:
            raise ValueError(f"expected a positive spread; got {self.spread!r}")
        if self.weight_decay < 0.0:
            raise ValueError(f"expected weight_decay >= 0; got {self.weight_decay!r}")
        self.flow(1)

    @property
    def chunk_width(self) -> int:
        """Hidden units of all layers: forward-mode Jacobians carry one tangent per coordinate."""
        return self.width * self.depth

    @property
    def gradients_per_update(self) -> int:
        """Paths, the same paths in the objectives, and three steps for consistency."""
        per_path = 2 * self.num_path_steps + 3 if self.langevin else 0
        return self.batch_size * (per_path + 1)

    def network(self, dim: int) -> ControlNetwork:
        """The control, for points `(dim,)`."""
        return ControlNetwork(
            dim, self.width, self.depth, self.num_frequencies, langevin=self.langevin
        )

    def flow(self, dim: int) -> ControlledFlow:
        """The control with its schedule; draws follow its probability-flow ODE."""
        return ControlledFlow(
            self.network(dim), self.schedule, self.residual, self.kernel, self.tail
        )

    def preconditioner(self, fit: Affine) -> Affine:
        """The Gaussian fit, or the prior."""
        if self.prior_scale is None:
            return fit
        mean = jnp.zeros_like(fit.mean)
        return Affine(mean, self.prior_scale * jnp.eye(len(mean), dtype=mean.dtype))

    @property
    def recentres(self) -> bool:
        """Not where paths start from a prior in the coordinates of the user's model."""
        return self.prior_scale is None

    def path_teacher(self, params: Params, average: Params) -> Params:
        """Parameters of the teacher that steps are made consistent with."""
        return average

    def batch(
        self,
        density: Density,
        flow: Any,
        params: Params,
        average: Params,
        points: MovedPoints,
        teacher: Any,
        update: jax.Array,
        rng_key: jax.Array,
        outer_factors: jax.Array | None = None,
    ) -> Any:
        """Paths under the current parameters, with the numbers that made them."""
        key_normal, key_uniform, key_probe = jax.random.split(rng_key, 3)
        num, dim, dtype = self.batch_size, flow.dim, density.affine.mean.dtype
        normal = jax.random.normal(key_normal, (num, self.num_path_steps + 1, dim), dtype)
        start = normal[:, 0] * (0.0 if flow.kernel.starts_at_zero else self.spread)
        noise = normal[:, 1:]
        held = jax.lax.stop_gradient(params)
        path, _ = jax.vmap(lambda x, eps: simulate(flow, held, density, x, eps))(start, noise)
        times, uniform = jax.random.uniform(key_uniform, (2, num), dtype)
        return PathBatch(
            start=start,
            noise=noise,
            path=jax.lax.stop_gradient(path),
            times=times,
            uniform=uniform,
            probes=jax.random.rademacher(key_probe, (num, dim), dtype),
            teacher=self.path_teacher(held, average),
            density=density,
            update=update,
        )

    def optimiser(self) -> optax.GradientTransformation:
        """Adam or AdamW on clipped gradients."""
        steps = optax.chain(
            optax.clip_by_global_norm(self.max_gradient_norm),
            optax.scale_by_adam(),
            optax.add_decayed_weights(self.weight_decay),
        )
        return optax.flatten(finite_only(steps))
