r"""The published deterministic-flow weights of draws, for comparison with the exact ones.

    log w = log gamma(x) - log N(z; 0, I) + accumulated traces

(arXiv 2512.05251; see `flow.trace`). They are stored under a name of their own; evidence,
diagnostics and posterior draws come from the exact weights alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import numpy as np

from numpyro_onestep.flow import DiffusionFlow, Flow, TraceLogDet
from numpyro_onestep.inference.drawing import Part, chunks, mixed, shared_out
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density
from numpyro_onestep.target import in_batches
from numpyro_onestep.training.draws import standard_normal_log_density


def trace_log_weights(
    parts: Sequence[Part],
    trace: TraceLogDet,
    rng_key: jax.Array,
    num: int,
    chunk: int,
    *,
    num_steps: int,
) -> np.ndarray:
    """Trace weights `(num,)`, float64, of the draws that `weighted_draws` makes of the same key.

    Raises:
        ValueError: for a stochastic sampler, which has no flow to take the trace of.
    """
    if isinstance(parts[0].sampler.flow, DiffusionFlow):
        raise ValueError(
            "expected a sampler that follows a flow for trace weights; got a stochastic one"
        )
    found = []
    for part, key, counted in shared_out(parts, rng_key, num):
        flow, params = part.sampler.flow, part.sampler.params
        density = Density(part.target, part.sampler.affine)
        for key_chunk, size in chunks(key, counted, chunk):
            log_weight = _chunk(flow, params, density, key_chunk, chunk, num_steps, trace)
            found.append(np.asarray(log_weight, np.float64)[:size] - part.log_share)
    return np.concatenate(found)[mixed(parts, rng_key, num)]


@functools.partial(jax.jit, static_argnames=("flow", "num", "num_steps", "trace"))
def _chunk(
    flow: Flow,
    params: Params,
    density: Density,
    rng_key: jax.Array,
    num: int,
    num_steps: int,
    trace: TraceLogDet,
) -> jax.Array:
    # The numbers of `draw`: the same key, the same base draws.
    base = jax.random.normal(rng_key, (num, flow.dim), density.affine.mean.dtype)
    keys = jax.random.split(jax.random.fold_in(rng_key, 0), num)

    def one(point: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        z, key = point
        return trace.along(flow, params, density, z, num_steps, key)

    # Of every probe its tangents within a step and behind it.
    probes = flow.dim if trace.num_probes is None else trace.num_probes
    image, total = in_batches(one, (base, keys), 3 * flow.dim * probes)
    log_density = jax.vmap(density.log_density)(image)
    return log_density + total - standard_normal_log_density(base)
