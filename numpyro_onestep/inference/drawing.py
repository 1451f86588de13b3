"""Draws by the thousand from a trained sampler, in chunks of bounded memory."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_onestep import flow as flows
from numpyro_onestep.importance import Evidence, evidence
from numpyro_onestep.inference_data import psis
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import Target
from numpyro_onestep.training import Draws, TrainedSampler, draw

# Floats that one chunk may hold in its largest intermediate, a Jacobian factor per draw.
_CHUNK_VALUES = 2**24
_MAX_CHUNK = 16384


@dataclasses.dataclass(frozen=True)
class OneStepDraws:
    """Independent draws of a trained sampler, `n` of each.

    Attributes:
        samples: constrained sites and deterministics `(n, *event)`.
        log_weights: `log|w|`, `(n,)`; None if drawn without weights.
        sign: sign of each weight, `(n,)`: -1 where the map folds; None without weights.
        evidence: the evidence from these draws; None without weights.
    """

    samples: dict[str, np.ndarray]
    log_weights: np.ndarray | None = None
    sign: np.ndarray | None = None
    evidence: Evidence | None = None


@dataclasses.dataclass(frozen=True)
class WeightedDraws:
    """Draws in unconstrained coordinates on the host, `n` of each, weights in float64.

    Attributes:
        x: `(n, dim)`.
        log_density: of the target at `x`, `(n,)`.
        log_det: log absolute determinant of the whole map, preconditioner included, `(n,)`.
        sign: of the determinant, `(n,)`.
        log_weight: `log|w|`, `(n,)`.
    """

    x: np.ndarray
    log_density: np.ndarray
    log_det: np.ndarray
    sign: np.ndarray
    log_weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class Weighed:
    """What the weights of a set of `n` draws say.

    Attributes:
        psis_log_weight: Pareto-smoothed log-weights `(n,)`.
        pareto_k: k-hat of their tail.
        evidence: the evidence, with its standard error.
    """

    psis_log_weight: np.ndarray
    pareto_k: float
    evidence: Evidence


def weighted_draws(
    target: Target,
    sampler: TrainedSampler,
    blocks: Any,
    rng_key: jax.Array,
    num: int,
    chunk: int,
) -> tuple[WeightedDraws, Draws]:
    """`num` draws with exact weights, and the first chunk of them as it is on the device."""
    parts: list[tuple[np.ndarray, ...]] = []
    first = None
    for key, size in chunks(rng_key, num, chunk):
        draws = draw(target, sampler.affine, blocks, key, chunk)
        first = draws if first is None else first
        fields = (draws.image, draws.log_density, draws.log_det, draws.sign, draws.log_base)
        parts.append(tuple(np.asarray(field)[:size] for field in fields))
    image, log_density, log_det, sign, log_base = (
        np.concatenate(field) for field in zip(*parts, strict=True)
    )
    assert first is not None
    volume = float(sampler.affine.log_det)
    log_density, log_det, log_base = (
        np.asarray(field, np.float64) for field in (log_density, log_det, log_base)
    )
    result = WeightedDraws(
        x=np.asarray(sampler.affine.forward(jnp.asarray(image))),
        log_density=log_density - volume,
        log_det=log_det + volume,
        sign=np.asarray(sign, np.float64),
        log_weight=log_density + log_det - log_base,
    )
    return result, first


def weigh(draws: WeightedDraws, sampler: TrainedSampler) -> Weighed:
    """Tail and evidence of weighted draws."""
    psis_log_weight, pareto_k = psis(draws.log_weight)
    found = evidence(
        draws.log_weight,
        draws.sign,
        pareto_k=pareto_k,
        resolution=_rounding_error(draws.log_density, sampler.affine.mean.dtype),
    )
    return Weighed(psis_log_weight, pareto_k, found)


def plain_draws(
    target: Target, sampler: TrainedSampler, blocks: Any, rng_key: jax.Array, num: int
) -> dict[str, np.ndarray]:
    """`num` constrained draws: network and constraining transforms in one program."""
    sites = jax.eval_shape(target.constrain_one, sampler.affine.mean)
    values = max(sum(leaf.size for leaf in sites.values()), flows.base_dim(blocks))
    chunk = max(1, min(_MAX_CHUNK, num, _CHUNK_VALUES // values))
    parts = []
    for key, size in chunks(rng_key, num, chunk):
        drawn = _draw_sites(target, sampler.affine, blocks, key, chunk)
        parts.append({name: np.asarray(value)[:size] for name, value in drawn.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in sites}


def chunk_size(dim: int, width: int, num: int) -> int:
    """Weighted draws per chunk: as many as `num`, fewer where their Jacobians fill the memory."""
    return max(1, min(num, _CHUNK_VALUES // (dim * max(min(dim, width), 1))))


def chunks(rng_key: jax.Array, num: int, chunk: int) -> Iterator[tuple[jax.Array, int]]:
    """A key and a number of draws to keep per chunk; the last chunk is drawn whole and cut."""
    for i, start in enumerate(range(0, num, chunk)):
        yield jax.random.fold_in(rng_key, i), min(chunk, num - start)


@functools.partial(jax.jit, static_argnames="num")
def _draw_sites(
    target: Target, affine: Affine, blocks: Any, rng_key: jax.Array, num: int
) -> dict[str, jax.Array]:
    base = jax.random.normal(rng_key, (num, flows.base_dim(blocks)), affine.mean.dtype)
    image = jax.vmap(flows.apply, in_axes=(None, 0))(blocks, base)
    return jax.vmap(target.constrain_one)(affine.forward(image))


def _rounding_error(log_density: np.ndarray, dtype: jnp.dtype) -> float:
    """Absolute rounding error of a log-weight: one unit in the last place of the log-density."""
    finite = np.abs(log_density[np.isfinite(log_density)])
    return float(np.finfo(dtype).eps * np.median(finite)) if finite.size else 0.0
