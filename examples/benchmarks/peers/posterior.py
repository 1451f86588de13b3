"""A NumPyro model with its data, as samplers outside NumPyro need it.

Everything is worked out from a trace of the model: the log prior and the log-likelihood at a flat
unconstrained vector, draws of the prior, and the prior's map from the unit cube. What it costs is
part of the run that asks for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to
from scipy.special import gammaincinv

# Stands for the log-likelihood of an impossible point where a sampler cannot take -inf.
FLOOR = -1e30
_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class Posterior:
    """`model(**arguments)` with continuous latent sites."""

    model: Callable[..., None]
    arguments: dict

    @cached_property
    def _start(self) -> dict:
        """Zeros in the unconstrained shape of every latent site."""

        def values(key: jax.Array) -> dict:
            seeded = handlers.seed(self.model, key)
            sites = handlers.trace(seeded).get_trace(**self.arguments)
            return {
                name: biject_to(site["fn"].support).inv(site["value"])
                for name, site in sites.items()
                if site["type"] == "sample" and not site["is_observed"]
            }

        # Nothing is computed: vague priors draw values that their own likelihood refuses.
        shapes = jax.eval_shape(values, jax.random.key(0))
        return {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}

    @property
    def latent_sites(self) -> list[str]:
        """Their names, sorted."""
        return sorted(self._start)

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector, the sites in sorted order of their names."""
        return sum(value.size for value in self._start.values())

    def _trace(self, choose: Callable[[dict], jax.Array | None]) -> dict:
        seeded = handlers.seed(self.model, jax.random.key(0))
        model = handlers.substitute(seeded, substitute_fn=choose)
        return handlers.trace(model).get_trace(**self.arguments)

    def _at(self, x: jax.Array) -> tuple[dict, jax.Array]:
        """The trace at `x: (dim,)`, and the log-determinant of the constraining transforms."""
        values, log_dets = ravel_pytree(self._start)[1](x), []

        def choose(site: dict) -> jax.Array | None:
            if site["name"] not in values:
                return None
            unconstrained = values[site["name"]]
            transform = biject_to(site["fn"].support)
            value = transform(unconstrained)
            log_dets.append(transform.log_abs_det_jacobian(unconstrained, value).sum())
            return value

        return self._trace(choose), sum(log_dets)

    def log_parts(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Log prior, with the transforms' log-determinant, and log-likelihood at `x: (dim,)`.

        The latter is -inf where it is undefined.
        """
        sites, log_prior = self._at(x)
        log_likelihood = jnp.zeros((), x.dtype)
        for name, site in sites.items():
            if site["type"] != "sample":
                continue
            log_prob = site["fn"].log_prob(site["value"]).sum()
            if name in self._start:
                log_prior += log_prob
            else:
                log_likelihood += log_prob
        return log_prior, jnp.where(jnp.isnan(log_likelihood), -jnp.inf, log_likelihood)

    def log_joint(self, x: jax.Array) -> jax.Array:
        """Unnormalised log-density at `x: (dim,)`, whose integral is the evidence."""
        return sum(self.log_parts(x))

    def log_prior(self, x: jax.Array) -> jax.Array:
        """First of `log_parts`."""
        return self.log_parts(x)[0]

    def log_likelihood(self, x: jax.Array) -> jax.Array:
        """Second of `log_parts`, with `FLOOR` for an impossible point."""
        return jnp.maximum(self.log_parts(x)[1], FLOOR)

    def prior_draws(self, rng_key: jax.Array, num: int) -> jax.Array:
        """`(num, dim)`, independent; values that underflow are moved to the smallest number."""

        def one(key: jax.Array) -> jax.Array:
            sites = handlers.trace(handlers.seed(self.model, key)).get_trace(**self.arguments)
            return self._flat({name: sites[name] for name in self._start})

        return jax.jit(jax.vmap(one))(jax.random.split(rng_key, num))

    def from_cube(self, u: jax.Array) -> jax.Array:
        """The prior's quantiles `(dim,)`, unconstrained, at `u` in the unit cube `(dim,)`."""
        quantiles = ravel_pytree(self._start)[1](u)

        def choose(site: dict) -> jax.Array | None:
            if site["name"] not in quantiles:
                return None
            return quantile(site["fn"], quantiles[site["name"]])

        sites = self._trace(choose)
        return self._flat({name: sites[name] for name in self._start})

    def _flat(self, sites: dict) -> jax.Array:
        values = {n: biject_to(s["fn"].support).inv(s["value"]) for n, s in sites.items()}
        flat = ravel_pytree(values)[0]
        low = jnp.log(jnp.finfo(flat.dtype).tiny)
        return jnp.nan_to_num(flat, nan=low, neginf=low, posinf=-low)

    def constrain(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Constrained and deterministic sites `(n, *event)` of points `(n, dim)`."""

        def one(point: jax.Array) -> dict:
            sites, _ = self._at(point)
            return {
                name: site["value"]
                for name, site in sites.items()
                if name in self._start or site["type"] == "deterministic"
            }

        return in_chunks(jax.jit(jax.vmap(one)), x)

    def log_joints(self, x: np.ndarray) -> np.ndarray:
        """`log_joint` of points `(n, dim)`, in float64: `(n,)`."""
        found = in_chunks(jax.jit(jax.vmap(self.log_joint)), x)
        return np.asarray(found, np.float64)

    def start(self, rng_key: jax.Array) -> jax.Array:
        """A point `(dim,)` uniform in (-2, 2), as NumPyro's chains start."""
        return jax.random.uniform(rng_key, (self.dim,), minval=-2.0, maxval=2.0)


def in_chunks(function: Callable, x: np.ndarray, size: int | None = None):
    """`function` of points `(n, dim)` in chunks of one size, so that it is compiled once.

    A given size also serves calls with various numbers of points.
    """
    size = size or min(_CHUNK, len(x))
    parts = []
    for begin in range(0, len(x), size):
        part = x[begin : begin + size]
        padded = np.pad(part, ((0, size - len(part)), (0, 0)), mode="edge")
        parts.append(jax.tree.map(np.asarray, function(padded)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(x)], *parts)


def quantile(fn: dist.Distribution, u: jax.Array) -> jax.Array:
    """Quantiles of a site's distribution, one coordinate after the other, at `u` in (0, 1)."""
    if isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        return quantile(fn.base_dist, u)
    if isinstance(fn, dist.GaussianRandomWalk):
        steps = dist.Normal(0.0, 1.0).icdf(u)
        return jnp.expand_dims(fn.scale, -1) * jnp.cumsum(steps, -1)
    if isinstance(fn, dist.Gamma):
        shape = jnp.broadcast_shapes(jnp.shape(fn.concentration), u.shape)
        standard = jax.pure_callback(
            lambda a, q: gammaincinv(np.float64(a), np.float64(q)).astype(q.dtype),
            jax.ShapeDtypeStruct(shape, u.dtype),
            jnp.broadcast_to(fn.concentration, shape),
            jnp.broadcast_to(u, shape),
            vmap_method="expand_dims",
        )
        return standard / fn.rate
    return fn.icdf(u)
