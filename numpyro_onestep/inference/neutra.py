r"""A trained sampler as a transport for NUTS: what NumPyro's `NeuTraReparam` needs of a guide.

Under `NeuTraReparam` the model has one latent site z with `x = C(m + L T(z))`, and NUTS moves in z,
where the posterior is close to a standard normal (Hoffman et al. 2019, arXiv 1903.03704). `C` leads
from recentred coordinates, where the sampler has any, to those of the model. The posterior of the
model's own sites does not change.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform
from numpyro.infer.autoguide import AutoContinuous
from numpyro.infer.reparam import NeuTraReparam

from numpyro_onestep import flow as flows
from numpyro_onestep.inference.drawing import Part, ready
from numpyro_onestep.inference.run import Run
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import Target, apart, users_points


class OneStepTransform(Transform):
    """From a standard normal `z` to unconstrained coordinates of the model, `(..., dim)` both.

    Attributes:
        coordinates: the target that the sampler was trained for.
        affine: its preconditioner.
        steps: its map; None for the preconditioner alone.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, coordinates: Target, affine: Affine, steps: Any = None) -> None:
        """See the class."""
        self.coordinates = coordinates
        self.affine = affine
        self.steps = steps

    def __call__(self, x: jax.Array) -> jax.Array:
        """Unconstrained coordinates of the model."""
        return jnp.vectorize(lambda z: self._with_volume(z)[0], signature="(d)->(d)")(x)

    def log_abs_det_jacobian(
        self, x: jax.Array, y: jax.Array, intermediates: Any = None
    ) -> jax.Array:
        """Log-volume of the map at `x`, `(...,)`."""
        return jnp.vectorize(lambda z: self._with_volume(z)[1], signature="(d)->()")(x)

    def _with_volume(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_det = jnp.zeros((), z.dtype)
        # Called from inside the model, which both the flow and the coordinates may run again.
        with apart():
            if self.steps is not None:
                z, log_det, _ = flows.apply_with_log_det(self.steps, z)
            x = self.affine.forward(z)
            log_det += self.affine.log_det_at(z)
            (x,), (log_stretch,) = users_points(self.coordinates, x[None])
        return x, log_det + log_stretch

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """All that it is made of holds arrays."""
        names = ("coordinates", "affine", "steps")
        return tuple(getattr(self, name) for name in names), (names, {})


class OneStepGuide(AutoContinuous):
    """A trained sampler in the place of a trained guide; it has no parameters left."""

    def __init__(self, target: Target, transform: OneStepTransform) -> None:
        """`transform` maps a standard normal to unconstrained coordinates of the target."""
        super().__init__(target.program.model)
        self.transform = transform
        self.latent_dim = target.dim
        # All that `NeuTraReparam` reads: which sites are ours, and the plates that they are in.
        latent = {
            name: {"name": name, "type": "sample", "is_observed": False}
            for name in target.site_slices
        }
        plates = {name: {"name": name, "type": "plate"} for name in target.program.plate_sizes}
        self.prototype_trace = {**plates, **latent}
        self._unpack_latent = target.program.unravel
        self._target = target

    def get_base_dist(self) -> dist.Distribution:
        """A standard normal in as many dimensions."""
        return dist.Normal(jnp.zeros(self.latent_dim), 1.0).to_event(1)

    def get_transform(self, params: dict[str, Any]) -> OneStepTransform:
        """The map; nothing of it is among `params`."""
        return self.transform

    def _get_posterior(self) -> dist.Distribution:
        return dist.TransformedDistribution(self.get_base_dist(), self.transform)

    def _unpack_and_constrain(
        self, latent_sample: jax.Array, params: dict[str, Any]
    ) -> dict[str, jax.Array]:
        constrain = self._target.constrain_one
        for _ in latent_sample.shape[:-1]:
            constrain = jax.vmap(constrain)
        return constrain(latent_sample)


def neutra_reparam(run: Run, num_steps: int) -> NeuTraReparam:
    """The reparametrisation of the model of a run by its sampler.

    Raises:
        ValueError: where the sampler has a component for each of several modes.
    """
    target = run.fit.target
    parts = ready(target, run.fit.trained, num_steps)
    if len(parts) > 1:
        raise ValueError(
            "expected a sampler of one mode, since no chain crosses between modes; got "
            f"{len(parts)} components"
        )
    return NeuTraReparam(OneStepGuide(target, _bijection(run, parts[0])), {})


def _bijection(run: Run, part: Part) -> OneStepTransform:
    """The map where it is one to one as far as its draws tell; else the Gaussian fit alone."""
    folds = bool((run.draws.sign < 0).any())
    stochastic = flows.base_dim(part.steps) != run.fit.target.dim
    steps = None if folds or stochastic else part.steps
    return OneStepTransform(part.target, part.sampler.affine, steps)
