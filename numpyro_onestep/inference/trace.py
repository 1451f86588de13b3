r"""The published deterministic-flow weights of draws, for comparison with the exact ones.

    log w = log gamma(x) - log N(z; 0, I) + accumulated traces

(arXiv 2512.05251; see `flow.trace`). They are stored under a name of their own; evidence,
diagnostics and posterior draws come from the exact weights alone.
"""

from __future__ import annotations

import functools

import jax
import numpy as np

from numpyro_onestep.flow import DiffusionFlow, Flow, TraceLogDet
from numpyro_onestep.inference.drawing import chunks
from numpyro_onestep.networks import Params
from numpyro_onestep.preconditioner import Density
from numpyro_onestep.target import Target
from numpyro_onestep.training import TrainedSampler
from numpyro_onestep.training.draws import standard_normal_log_density


def trace_log_weights(
    target: Target,
    sampler: TrainedSampler,
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
    if isinstance(sampler.flow, DiffusionFlow):
        raise ValueError(
            "expected a sampler that follows a flow for trace weights; got a stochastic one"
        )
    density = Density(target, sampler.affine)
    parts = []
    for key, size in chunks(rng_key, num, chunk):
        log_weight = _chunk(sampler.flow, sampler.params, density, key, chunk, num_steps, trace)
        parts.append(np.asarray(log_weight, np.float64)[:size])
    return np.concatenate(parts)


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
    image, total = jax.vmap(lambda z, key: trace.along(flow, params, density, z, num_steps, key))(
        base, keys
    )
    log_density = jax.vmap(density.log_density)(image)
    return log_density + total - standard_normal_log_density(base)
