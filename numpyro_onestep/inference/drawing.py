"""Draws by the thousand from a trained sampler, in chunks of bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from numpyro_onestep import flow as flows
from numpyro_onestep.compilation import compiled
from numpyro_onestep.exploration import Component
from numpyro_onestep.host_random import host_generator
from numpyro_onestep.importance import Evidence, evidence
from numpyro_onestep.inference_data import psis
from numpyro_onestep.preconditioner import Affine
from numpyro_onestep.target import Target, users_points
from numpyro_onestep.training import Draws, TrainedMixture, TrainedSampler, draw

# Floats that one chunk may hold in its largest intermediate, a Jacobian factor per draw, unless
# that is too few draws: as many points walk together, and fewer would show no small missed part.
_CHUNK_VALUES, _LEAST_CHUNK = 2**24, 2048
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
        log_weight: `log|w|`, `(n,)`; of the pair of label and point where there are labels.
    """

    x: np.ndarray
    log_density: np.ndarray
    log_det: np.ndarray
    sign: np.ndarray
    log_weight: np.ndarray

    def with_more(self, other: WeightedDraws) -> WeightedDraws:
        """These draws, and then the others."""
        names = [field.name for field in dataclasses.fields(self)]
        return WeightedDraws(
            **{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        )


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


@dataclasses.dataclass(frozen=True)
class Part:
    """One component of the sampler, ready to draw from.

    Attributes:
        target: what it was trained for.
        sampler: as it was trained.
        steps: its map in the wanted number of steps.
        log_share: log-probability of its label.
    """

    target: Target
    sampler: TrainedSampler
    steps: Any
    log_share: float


def ready(target: Target, mixture: TrainedMixture, num_steps: int) -> list[Part]:
    """All components of a sampler in so many steps."""
    parts = []
    for label, sampler in enumerate(mixture.components):
        component = mixture.target(target, label)
        steps = sampler.steps(component, num_steps)
        parts.append(Part(component, sampler, steps, float(mixture.log_share[label])))
    return parts


def weighted_draws(
    parts: Sequence[Part], rng_key: jax.Array, num: int, chunk: int
) -> tuple[WeightedDraws, list[Draws]]:
    """`num` draws with exact weights, and the first chunk of each component on the device."""
    drawn: list[dict[str, np.ndarray]] = []
    first = []
    for part, key, counted in shared_out(parts, rng_key, num):
        # A component without a draw still has its first chunk, for the checks.
        for i, (key_chunk, size) in enumerate(chunks(key, max(counted, 1), chunk)):
            draws = draw(part.target, part.sampler.affine, part.steps, key_chunk, chunk)
            first += [draws] if i == 0 else []
            drawn.append(_on_host(part, draws, min(size, counted)))
    order = mixed(parts, rng_key, num)
    fields = {name: np.concatenate([d[name] for d in drawn])[order] for name in drawn[0]}
    return WeightedDraws(**fields), first


def _on_host(part: Part, draws: Draws, num: int) -> dict[str, np.ndarray]:
    """The first `num` of the draws, with the fields of `WeightedDraws`.

    Points and densities are those of the user's model, whatever the coordinates of the sampler.
    """
    affine = part.sampler.affine
    log_density, log_det, log_base, volume = (
        np.asarray(field, np.float64)[:num]
        for field in (
            draws.log_density,
            draws.log_det,
            draws.log_base,
            affine.log_det_at(draws.image),
        )
    )
    x = affine.forward(draws.image)
    log_rho = np.zeros(num)
    if isinstance(part.target, Component):
        log_rho = np.asarray(part.target.log_responsibility(x), np.float64)[:num]
    x, stretched = users_points(part.target, x)
    log_stretch = np.asarray(stretched, np.float64)[:num]
    return {
        "x": np.asarray(x)[:num],
        # Of the whole target, not of the component.
        "log_density": log_density - volume - log_rho - log_stretch,
        "log_det": log_det + volume + log_stretch,
        "sign": np.asarray(draws.sign, np.float64)[:num],
        "log_weight": log_density + log_det - log_base - part.log_share,
    }


def shared_out(
    parts: Sequence[Part], rng_key: jax.Array, num: int
) -> Iterator[tuple[Part, jax.Array, int]]:
    """A key and a number of draws per component."""
    for label, (part, counted) in enumerate(zip(parts, counts(parts, rng_key, num), strict=True)):
        # Chunks fold in small numbers.
        key = rng_key if len(parts) == 1 else jax.random.fold_in(rng_key, 2**20 + label)
        yield part, key, counted


def counts(parts: Sequence[Part], rng_key: jax.Array, num: int) -> list[int]:
    """How many of `num` draws have each label: the expected number, rounded up or down."""
    share = np.exp([part.log_share for part in parts])
    edges = np.round(np.cumsum(share / share.sum()) * num, 9)
    ticks = np.floor(edges[:-1] + host_generator(rng_key).random())
    return np.diff([0, *np.clip(ticks, 0, num).astype(int), num]).tolist()


def mixed(parts: Sequence[Part], rng_key: jax.Array, num: int) -> np.ndarray:
    """An order of the draws in which the labels come at random."""
    if len(parts) == 1:
        return np.arange(num)
    return host_generator(jax.random.fold_in(rng_key, 0)).permutation(num)


def weigh(draws: WeightedDraws) -> Weighed:
    """Tail and evidence of weighted draws."""
    psis_log_weight, pareto_k = psis(draws.log_weight)
    found = evidence(
        draws.log_weight,
        draws.sign,
        pareto_k=pareto_k,
        resolution=_rounding_error(draws.log_density, draws.x.dtype),
    )
    return Weighed(psis_log_weight, pareto_k, found)


def plain_draws(
    target: Target, parts: Sequence[Part], rng_key: jax.Array, num: int
) -> dict[str, np.ndarray]:
    """`num` constrained draws: network and constraining transforms in one program.

    The target is in the coordinates of the sampler, not of one component.
    """
    sites = target.shapes
    values = max(sum(leaf.size for leaf in sites.values()), flows.base_dim(parts[0].steps))
    chunk = max(1, min(_MAX_CHUNK, num, _CHUNK_VALUES // values))
    drawn = []
    for part, key, counted in shared_out(parts, rng_key, num):
        for key_chunk, size in chunks(key, counted, chunk):
            found = _draw_sites(target, part.sampler.affine, part.steps, key_chunk, chunk)
            drawn.append({name: np.asarray(value)[:size] for name, value in found.items()})
    order = mixed(parts, rng_key, num)
    return {name: np.concatenate([d[name] for d in drawn])[order] for name in sites}


def chunk_size(dim: int, width: int, num: int) -> int:
    """Weighted draws per chunk: as many as `num`, fewer where their Jacobians fill the memory."""
    return min(num, max(_LEAST_CHUNK, _CHUNK_VALUES // (dim * max(min(dim, width), 1))))


def chunks(rng_key: jax.Array, num: int, chunk: int) -> Iterator[tuple[jax.Array, int]]:
    """A key and a number of draws to keep per chunk; the last chunk is drawn whole and cut."""
    for i, start in enumerate(range(0, num, chunk)):
        yield jax.random.fold_in(rng_key, i), min(chunk, num - start)


@compiled(static_argnames="num")
def _draw_sites(
    target: Target, affine: Affine, blocks: Any, rng_key: jax.Array, num: int
) -> dict[str, jax.Array]:
    base = jax.random.normal(rng_key, (num, flows.base_dim(blocks)), affine.mean.dtype)
    image = jax.vmap(flows.apply, in_axes=(None, 0))(blocks, base)
    return jax.vmap(target.constrain_one)(affine.forward(image))


def _rounding_error(log_density: np.ndarray, dtype: np.dtype) -> float:
    """Absolute rounding error of a log-weight: one unit in the last place of the log-density."""
    finite = np.abs(log_density[np.isfinite(log_density)])
    return float(np.finfo(dtype).eps * np.median(finite)) if finite.size else 0.0
