"""The static half of a target: the model and how it is run, without its data.

Everything here is decided once when a target is built. Programs compare by identity, so JAX reuses
what it compiled for one program whatever data it is given.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.infer.util import constrain_fn, potential_energy
from numpyro.primitives import Messenger

from numpyro_onestep.target.arguments import Arguments, Slot, join_arguments
from numpyro_onestep.target.loc_scale import RecentredModel
from numpyro_onestep.target.normal_scores import auxiliary_name

# Smallest curvature along a standardised value, in units of the usual one.
_LEAST_RATIO = 0.01

Model = Callable[..., Any]
Sites = dict[str, jax.Array]


class _FixedKey(Messenger):
    """Answer `numpyro.prng_key()` with one key, so that the density is a function."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "prng_key" and msg["value"] is None:
            msg["value"] = jax.random.key(0)


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A model with its constant arguments and the layout of its unconstrained vector.

    Attributes:
        model: the user's model.
        init_strategy: the user's strategy for initial values.
        skeleton: the arguments with slots for the array leaves that are data.
        fixed: values of `numpyro.param` and `numpyro.mutable` sites, held constant as MCMC does.
        enumerate_dim: first dimension free for enumeration, None without discrete latent sites.
        unconstrained_shapes: shape of each latent site in unconstrained coordinates, in the order
            of the flat vector (sorted names, which is the order of NumPyro's autoguides).
        constrained_shapes: shape of each latent site's value.
        dims: names of the leading dimensions of the sites inside plates.
        plate_sizes: length of each of those dimensions that is a plate.
        held: names of the fixed parameters that the density depends on.
        loc_scale: support of each site that can be recentred (see `target.loc_scale`).
        scored: sites that have normal scores (see `target.normal_scores`).
        users: the program of the user's model, where this is that of a recentred one.
    """

    model: Model
    init_strategy: Callable[..., Any]
    skeleton: Arguments
    fixed: dict[str, Any]
    enumerate_dim: int | None
    unconstrained_shapes: dict[str, tuple[int, ...]]
    constrained_shapes: dict[str, tuple[int, ...]]
    dims: dict[str, tuple[str, ...]]
    plate_sizes: dict[str, int]
    held: tuple[str, ...]
    loc_scale: dict[str, Any] = dataclasses.field(default_factory=dict)
    scored: tuple[str, ...] = ()
    users: Program | None = None

    @functools.cached_property
    def recentred(self) -> Program:
        """The program of the model with its loc-scale sites recentred, and others scored.

        One object per program, as programs compare by identity. The centredness takes the place of
        further data, after those of this program.
        """
        args, kwargs = self.skeleton
        leaves = jax.tree.leaves(self.skeleton, is_leaf=lambda leaf: isinstance(leaf, Slot))
        first = sum(isinstance(leaf, Slot) for leaf in leaves)
        slots = {name: Slot(first + i) for i, name in enumerate(self.loc_scale)}
        return dataclasses.replace(
            self,
            model=RecentredModel(self.model, self.scored),
            skeleton=((slots, *args), kwargs),
            unconstrained_shapes=self._renamed(self.unconstrained_shapes),
            constrained_shapes=self._renamed(self.constrained_shapes),
            loc_scale={},
            scored=(),
            users=self,
        )

    def conditional(self, sites: tuple[str, ...]) -> ConditionalProgram:
        """The program in which the values of these sites are standardised given the others.

        One object per program and sites, as for `recentred`.
        """
        if sites not in self._conditionals:
            fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Program)}
            fields |= {"loc_scale": {}, "scored": (), "users": self.users or self}
            made = ConditionalProgram(**fields, inner=self, sites=sites)
            self._conditionals[sites] = made
        return self._conditionals[sites]

    @functools.cached_property
    def _conditionals(self) -> dict[tuple[str, ...], ConditionalProgram]:
        return {}

    def _renamed(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        replaced = {*self.loc_scale, *self.scored}
        return {
            auxiliary_name(name) if name in replaced else name: shape
            for name, shape in shapes.items()
        }

    @property
    def dim(self) -> int:
        """Length of the flat unconstrained vector."""
        return sum(math.prod(shape) for shape in self.unconstrained_shapes.values())

    @property
    def site_slices(self) -> dict[str, slice]:
        """Slice of the flat vector that each latent site occupies."""
        slices, start = {}, 0
        for name, shape in self.unconstrained_shapes.items():
            slices[name] = slice(start, start + math.prod(shape))
            start += math.prod(shape)
        return slices

    def unravel(self, x: jax.Array) -> Sites:
        """Unconstrained sites of the flat vector `x: (..., dim)`."""
        return {
            name: jnp.reshape(x[..., part], (*x.shape[:-1], *self.unconstrained_shapes[name]))
            for name, part in self.site_slices.items()
        }

    def ravel(self, sites: Sites) -> jax.Array:
        """Flat vector of unbatched unconstrained sites."""
        return jnp.concatenate(
            [jnp.ravel(sites[name]) for name in self.unconstrained_shapes], dtype=float_dtype()
        )

    def arguments(self, data: tuple[jax.Array, ...]) -> Arguments:
        """The model's arguments with the data in their slots."""
        return join_arguments(data, self.skeleton)

    @property
    def plain_model(self) -> Model:
        """The model with parameters fixed, and discrete latent sites left to be sampled."""
        return _FixedKey(handlers.substitute(self.model, data=self.fixed))

    @property
    def density_model(self) -> Model:
        """The plain model with its discrete latent sites enumerated, if it has any."""
        if self.enumerate_dim is None:
            return self.plain_model
        from numpyro.contrib.funsor import config_enumerate, enum

        return enum(config_enumerate(self.plain_model), self.enumerate_dim)

    def log_density(self, data: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
        """Log joint density with the Jacobian of the constraining transforms, at `x: (dim,)`."""
        args, kwargs = self.arguments(data)
        sites = self.unravel(jnp.asarray(x, float_dtype()))
        potential = potential_energy(
            self.density_model, args, kwargs, sites, enum=self.enumerate_dim is not None
        )
        return -jnp.asarray(potential, float_dtype())

    def constrain(self, data: tuple[jax.Array, ...], x: jax.Array) -> Sites:
        """Constrained and deterministic sites at `x: (dim,)`.

        The model is always replayed, so that supports which depend on other sites or on the data
        are those of this very point.
        """
        args, kwargs = self.arguments(data)
        sites = self.unravel(jnp.asarray(x, float_dtype()))
        values = constrain_fn(self.density_model, args, kwargs, sites, return_deterministic=True)
        if self.users is not None:
            # The user's sites are deterministic ones here.
            for name in set(self.unconstrained_shapes) - set(self.users.unconstrained_shapes):
                del values[name]
        return {name: jnp.asarray(value) for name, value in values.items()}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ConditionalProgram(Program):
    """A program in coordinates of which some are standardised given the others.

    Its data end with the centre and the precision of those, `(num,)` each; see `conditional`.

    Attributes:
        inner: the program in the coordinates without.
        sites: whose values are standardised.
    """

    inner: Program
    sites: tuple[str, ...]

    def log_density(self, data: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
        """Log joint density with the Jacobian of all transforms, at `x: (dim,)`."""
        found = self.unstandardised(data, jnp.asarray(x, float_dtype()))
        return self.inner.log_density(data[:-2], found["x"]) + found["log_det"]

    def constrain(self, data: tuple[jax.Array, ...], x: jax.Array) -> Sites:
        """Constrained and deterministic sites at `x: (dim,)`."""
        found = self.unstandardised(data, jnp.asarray(x, float_dtype()))
        return self.inner.constrain(data[:-2], found["x"])

    def unstandardised(self, data: tuple[jax.Array, ...], u: jax.Array) -> Sites:
        """The point `x` in the coordinates without, and `log_det` of `dx/du`, at `u: (dim,)`."""
        shift, scale = self._shift_and_scale(data, u)
        local = data[-2] + scale * (shift + self.local(u))
        return {"x": self.with_local(u, local), "log_det": jnp.log(scale).sum()}

    def standardised(self, data: tuple[jax.Array, ...], x: jax.Array) -> Sites:
        """The inverse: `u` at `x: (dim,)`."""
        shift, scale = self._shift_and_scale(data, x)
        return {"u": self.with_local(x, (self.local(x) - data[-2]) / scale - shift)}

    def local(self, x: jax.Array) -> jax.Array:
        """The values of the sites in `x: (dim,)`, `(num,)`."""
        slices = self.site_slices
        return jnp.concatenate([x[slices[name]] for name in self.sites])

    def with_local(self, x: jax.Array, local: jax.Array) -> jax.Array:
        """The point `x: (dim,)` with other values `(num,)` of the sites."""
        parts, start = [], 0
        for name, part in self.site_slices.items():
            if name in self.sites:
                size = part.stop - part.start
                parts.append(local[start : start + size])
                start += size
            else:
                parts.append(x[part])
        return jnp.concatenate(parts)

    def _shift_and_scale(
        self, data: tuple[jax.Array, ...], x: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`g / sqrt(h)` and `1 / sqrt(h)` at the centre, `(num,)` each."""
        centre, precision = data[-2:]

        def log_density(local: jax.Array) -> jax.Array:
            return self.inner.log_density(data[:-2], self.with_local(x, local))

        # The Hessian is diagonal: its product with ones is all of it.
        g, curvature = jax.jvp(jax.grad(log_density), (centre,), (jnp.ones_like(centre),))
        # As it is where the log-density is concave; smooth, and not below a half of the least.
        ratio = -curvature / precision
        blunted = 0.5 * (_LEAST_RATIO + jnp.maximum(ratio, 0.0) ** 2 / _LEAST_RATIO)
        ratio = jnp.where(ratio > _LEAST_RATIO, ratio, blunted)
        scale = jax.lax.rsqrt(precision * ratio)
        return scale * g, scale


def float_dtype() -> Any:
    """Default real dtype: float32, or float64 under x64."""
    return jnp.result_type(float)
