r"""The target: an unnormalised log-density in unconstrained coordinates, and the way back.

With `x` the flat unconstrained vector and `T` the constraining transforms of a model,

    log gamma(x) = log p(y, T(x)) + log |det dT/dx|,

so the evidence `Z = \int gamma(x) dx` is `p(y)` whenever the model is normalised.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer.util import unconstrain_fn

from numpyro_onestep.compilation import compiled
from numpyro_onestep.target import initial, prior
from numpyro_onestep.target.arguments import (
    check_representable,
    is_floating_array,
    named_arrays,
    refill_arguments,
)
from numpyro_onestep.target.normalisation import Evidence, classify
from numpyro_onestep.target.observation import Flags, observe
from numpyro_onestep.target.program import Program, Sites, float_dtype

# Values constrained in one call: bounds the memory that a replay of the model takes.
_VALUES_PER_CHUNK = 2**22
_DRAWS_PER_CHUNK = 4096


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["data"],
    meta_fields=["program", "evidence", "evidence_note", "in_double"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A model together with its data, as a pytree whose leaves are the data.

    Pass it to jitted functions as an argument: what is compiled for it serves every target made by
    `with_data`. Targets pickle as far as their model, their initialisation strategy and their
    constant arguments do (functions of a module do, closures and lambdas do not).

    Attributes:
        data: array-valued arguments of the model; empty if it cannot be traced with abstract ones.
        program: the static half.
        evidence: whether `Z` is p(y) ("normalised"), something else of interest ("noted"), or
            meaningless ("refused").
        evidence_note: sentences saying why, naming the sites; empty for "normalised".
        in_double: whether whatever the model says is computed in double precision in any case;
            points and values are in the default one all the same.
    """

    data: tuple[jax.Array, ...]
    program: Program
    evidence: Evidence = "normalised"
    evidence_note: str = ""
    in_double: bool = False

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector."""
        return self.program.dim

    @property
    def enumerates(self) -> bool:
        """Whether the model has discrete latent sites, which the density sums out."""
        return self.program.enumerate_dim is not None

    @property
    def site_slices(self) -> dict[str, slice]:
        """Slice of the unconstrained vector per latent site, in sorted order of names."""
        return self.program.site_slices

    def site_at(self, coordinate: int) -> str:
        """Name of the latent site that a coordinate of the unconstrained vector belongs to."""
        for name, part in self.site_slices.items():
            if part.start <= coordinate < part.stop:
                return name
        raise ValueError(f"expected a coordinate of {self.dim}; got {coordinate}")

    def log_density(self, x: jax.Array) -> jax.Array:
        """Log-density at one point: `(dim,) -> ()` in the default float dtype.

        Differentiable; values that are not finite are passed on as they are.
        """
        if not self.in_double:
            return self.program.log_density(self.data, x)
        return _log_density_in_double(self.program, self.data, x)

    def constrain_one(self, x: jax.Array) -> Sites:
        """Constrained and deterministic sites at one point `(dim,)`; for use inside `jit`."""
        return self.sites_of(lambda target, x: target.program.constrain(target.data, x), x)

    def sites_of(self, function: Callable[[Target, jax.Array], Sites], x: jax.Array) -> Sites:
        """`function(target, x)` in the precision of the target, in dtypes of the default one."""
        if not self.in_double:
            return function(self, x)
        narrow = jax.eval_shape(function, self, x)
        with self.precision():
            data, wide = self.widened((self.data, x))
            found = function(dataclasses.replace(self, data=data), wide)
            return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), found, narrow)

    def precision(self) -> AbstractContextManager[None]:
        """The context in which the model is run: under x64 where it has to be."""
        return _double_precision() if self.in_double else contextlib.nullcontext()

    def widened(self, tree: Any) -> Any:
        """For use in that context: a pytree with its arrays of reals in the precision of it."""
        return jax.tree.map(_widened, tree) if self.in_double else tree

    @property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the constrained and deterministic sites at one point."""
        x = jax.ShapeDtypeStruct((self.dim,), float_dtype())
        # Of values that are not known, NumPyro checks nothing: each check would be compiled.
        return jax.eval_shape(Target.constrain_one, self, x)

    def constrain(self, x: jax.Array | np.ndarray) -> dict[str, np.ndarray]:
        """Constrained and deterministic sites of many points, as `MCMC.get_samples` has them.

        Compiled once and run in chunks of bounded memory. Enumerated discrete sites are not among
        them: `Predictive(model, samples, infer_discrete=True)` recovers those.

        Args:
            x: points `(n, dim)`.

        Returns:
            Arrays `(n, *event)` by name of the site.

        Raises:
            ValueError: if `x` has another shape.
        """
        if np.ndim(x) != 2 or np.shape(x)[1] != self.dim:
            raise ValueError(f"expected points of shape (n, {self.dim}); got {np.shape(x)}")
        shapes = self.shapes
        values = sum(leaf.size for leaf in shapes.values())
        chunk = max(1, min(_DRAWS_PER_CHUNK, _VALUES_PER_CHUNK // max(values, 1)))
        parts = []
        points = np.asarray(x, float_dtype())
        for start in range(0, len(points), chunk):
            part = points[start : start + chunk]
            # The last chunk is padded: a chunk of its own length would be compiled anew.
            padded = np.pad(part, ((0, chunk - len(part)), (0, 0)), mode="edge")
            sites = _constrain(self, padded)
            parts.append({name: np.asarray(v)[: len(part)] for name, v in sites.items()})
        if not parts:
            return {name: np.zeros((0, *leaf.shape), leaf.dtype) for name, leaf in shapes.items()}
        return {name: np.concatenate([part[name] for part in parts]) for name in shapes}

    def unconstrain(self, sites: dict[str, Any]) -> jax.Array:
        """Unconstrained vector of constrained latent sites; inverse of `constrain`.

        Args:
            sites: value of every latent site `(*batch, *event)`; other names are ignored.

        Returns:
            Points `(*batch, dim)`.

        Raises:
            ValueError: if a latent site is missing or has another shape.
        """
        shapes = self.program.constrained_shapes
        missing = sorted(set(shapes) - set(sites))
        if missing:
            raise ValueError(f"expected values of all latent sites; got none of {missing}")
        values = {name: jnp.asarray(sites[name]) for name in shapes}
        batches = set()
        for name, shape in shapes.items():
            lead = values[name].ndim - len(shape)
            if lead < 0 or values[name].shape[lead:] != shape:
                raise ValueError(
                    f"expected site '{name}' to have shape (*batch, {', '.join(map(str, shape))}); "
                    f"got {values[name].shape}"
                )
            batches.add(values[name].shape[:lead])
        if len(batches) > 1:
            raise ValueError(f"expected one batch shape for all sites; got {sorted(batches)}")
        (batch,) = batches
        flat = {name: v.reshape((-1, *shapes[name])) for name, v in values.items()}
        return _unconstrain(self, flat).reshape((*batch, self.dim))

    def initial_points(self, rng_key: jax.Array, num: int) -> jax.Array:
        """Starting points `(num, dim)` by the user's strategy, with finite density and gradient.

        A strategy that fixes all values, such as a full `init_to_value`, yields equal points. Where
        NumPyro's default strategy finds none, draws of the prior are looked at.

        Raises:
            ValueError: if no point is valid, naming the first site to blame.
        """
        return initial.valid_points(self, rng_key, num)

    def prior_points(self, rng_key: jax.Array, num: int) -> jax.Array:
        """Draws `(num, dim)` from the prior, for exploration; not all need be finite.

        A site without a prior to draw from has a broad normal in unconstrained coordinates.
        """
        return prior.prior_points(self, rng_key, num)

    def log_prior(self, x: jax.Array) -> jax.Array:
        """Log-density of `prior_points` at one point: `(dim,) -> ()`."""
        return prior.log_prior(self, x)

    def with_data(self, *args: Any, **kwargs: Any) -> Target:
        """The same target for new data: nothing is traced or compiled again.

        Raises:
            ValueError: if structure, shape or dtype of the arguments differ, if an argument changed
                that the model uses as a constant, if single precision cannot hold its values, or
                if the density is finite nowhere.
        """
        program = self.program
        check_representable(program.model, (args, kwargs))
        data = refill_arguments(program.model, self.data, program.skeleton, (args, kwargs))
        target = dataclasses.replace(self, data=data).classified()
        target.initial_points(jax.random.key(0), 1)
        return target

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments of the model, as JAX arrays where they are data."""
        return self.program.arguments(self.data)

    @functools.cached_property
    def _observation(self) -> tuple[dict[str, Flags], dict[str, np.ndarray]]:
        return observe(self)

    def classified(self) -> Target:
        """The same target with `evidence` and `evidence_note` as its data make them."""
        evidence, note = classify(self._observation[0], self.program.held)
        return dataclasses.replace(self, evidence=evidence, evidence_note=note)

    @property
    def dims(self) -> dict[str, list[str]]:
        """Names of the leading dimensions of each site inside plates; ArviZ names the others."""
        return {name: list(dims) for name, dims in self.program.dims.items()}

    @property
    def coords(self) -> dict[str, np.ndarray]:
        """Coordinates `0 .. size - 1` of each plate's dimension."""
        return {name: np.arange(size) for name, size in self.program.plate_sizes.items()}

    @property
    def observed_data(self) -> dict[str, np.ndarray]:
        """Observed values by site; NaN where a latent site fills in a missing value."""
        return dict(self._observation[1])

    @property
    def constant_data(self) -> dict[str, np.ndarray]:
        """Array-valued arguments of the model, by parameter name, that are not observed values."""
        observed = self.observed_data.values()
        return {
            name: array
            for name, array in named_arrays(self.program.model, self.arguments).items()
            if not any(_same_values(array, value) for value in observed)
        }

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) over names, shapes, dtypes and bytes of the observed data."""
        sha = hashlib.sha256()
        for name, value in sorted(self.observed_data.items()):
            sha.update(f"{name}|{value.dtype.str}|{value.shape}|".encode())
            sha.update(np.ascontiguousarray(value).tobytes())
        return sha.hexdigest()


@compiled()
def _constrain(target: Target, x: jax.Array) -> Sites:
    return jax.vmap(target.constrain_one)(x)


@compiled()
def _unconstrain(target: Target, sites: Sites) -> jax.Array:
    args, kwargs = target.arguments

    def one(values: Sites) -> jax.Array:
        # The seed serves discrete sites only: every continuous one has its value.
        model = handlers.seed(target.program.plain_model, 0)
        return target.program.ravel(unconstrain_fn(model, args, kwargs, values))

    return jax.vmap(one)(sites)


def _double_precision() -> AbstractContextManager[None]:
    return jax.enable_x64(True)  # noqa: FBT003 - it takes no keyword.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _log_density_in_double(
    program: Program, data: tuple[jax.Array, ...], x: jax.Array
) -> jax.Array:
    """The gradient that JAX makes by itself leaves the context, and narrows products on its way."""
    with _double_precision():
        return _widely(program, data, x)


def _widely(program: Program, data: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
    data, wide = jax.tree.map(_widened, (data, x))
    return program.log_density(data, wide).astype(x.dtype)


def _forward(
    program: Program, data: tuple[jax.Array, ...], x: jax.Array
) -> tuple[jax.Array, Callable[[jax.Array], tuple[Any, ...]]]:
    with _double_precision():
        return jax.vjp(functools.partial(_widely, program), data, x)


def _backward(
    program: Program, pull_back: Callable[[jax.Array], tuple[Any, ...]], cotangent: jax.Array
) -> tuple[Any, ...]:
    del program
    with _double_precision():
        return pull_back(cotangent)


_log_density_in_double.defvjp(_forward, _backward)


def _widened(leaf: Any) -> Any:
    return jnp.asarray(leaf, jnp.float64) if is_floating_array(leaf) else leaf


def _same_values(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
