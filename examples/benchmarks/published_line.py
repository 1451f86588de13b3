"""One line of `published_samplers.py`: a method, trained on a target, and measured."""

import dataclasses
import importlib.util
import time
from typing import Any

import numpy as np

import metrics
import published_consistency
import suite

STEPS = (1, 2, 4, 8, 16)
# Those at which draws are held against draws of the target: inverting the map costs most.
COMPARED_STEPS = (1, 16)
NUM_DRAWS = 2000
# Exact traces, one tangent per coordinate, are left out beyond. A dense determinant takes a good
# part of a second there: the published one-step samplers are trained and measured on few draws.
MAX_DIM_OF_GAPS = 500
NUM_TRAINED_LARGE, NUM_DRAWS_LARGE = 16, 64
# Points per side of a transport problem.
NUM_POINTS = 500


def methods(dim: int = 1) -> dict:
    """Methods by the name under which they are reported, at a budget for two cores."""
    from numpyro_onestep import CDDS, DDS, DIS, OSDS, PIS, SCDS, ResampleMove

    found = {
        "default": ResampleMove(),
        "OSDS": OSDS(),
        "SCDS": SCDS(),
        "CDDS": CDDS(),
        "DIS": DIS(),
        "PIS": PIS(),
        "DDS": DDS(),
    }
    if dim > MAX_DIM_OF_GAPS:
        for name in ("OSDS", "SCDS", "CDDS"):
            found[name] = dataclasses.replace(found[name], num_points=NUM_TRAINED_LARGE)
    return found


def from_the_other_side(target: Any, sampler: Any, row: suite.Row, num_steps: int) -> dict:
    """EUBO and forward share of effective draws; empty where the target cannot be sampled."""
    import jax

    from numpyro_onestep.preconditioner import Density
    from numpyro_onestep.target import recentred_points, users_target
    from numpyro_onestep.training import log_weight_at

    if row.draws is None:
        return {}
    x = users_target(target).unconstrain(row.draws(1, NUM_POINTS))
    z = sampler.affine.inverse(recentred_points(target, x))
    log_density = jax.vmap(Density(target, sampler.affine).log_density)(z)
    log_weight, known = log_weight_at(sampler.steps(target, num_steps), z, log_density)
    found = np.asarray(log_weight, np.float64)[np.asarray(known & np.isfinite(log_weight))]
    return {
        "eubo": float(found.mean()) if found.size else float("nan"),
        "forward_ess": metrics.forward_ess(found) if found.size else float("nan"),
        "inverted": len(found) / NUM_POINTS,
    }


def distances(target: Any, sampler: Any, row: suite.Row, image: Any) -> dict:
    """MMD and Sinkhorn distance of unweighted draws; empty where the target cannot be sampled."""
    from numpyro_onestep.target import centredness_of, users_points, users_target

    if row.draws is None:
        return {}
    u = sampler.affine.forward(image[:NUM_POINTS])
    x = np.asarray(users_points(target, u)[0] if centredness_of(target) is not None else u)
    x = x[np.isfinite(x).all(axis=1)]
    y = np.asarray(users_target(target).unconstrain(row.draws(2, NUM_POINTS)))
    found = {"mmd": metrics.mmd(x, y)}
    if importlib.util.find_spec("ott"):
        found["sinkhorn"] = metrics.sinkhorn(x, y)
    return found


def run_one(
    name: str,
    row: suite.Row,
    seed: int,
    data_dir: str | None,
    limit: float,
    *,
    verdict: bool,
) -> dict:
    """Trains one method on one target in this process; returns its line.

    Without a verdict the steps between one and the last are left out too.
    """
    import jax

    from numpyro_onestep import TraceLogDet
    from numpyro_onestep.importance import ess, evidence, folded_fraction
    from numpyro_onestep.inference.drawing import Part, chunk_size
    from numpyro_onestep.inference.run import Fit, finish
    from numpyro_onestep.inference.trace import trace_log_weights
    from numpyro_onestep.inference_data import psis
    from numpyro_onestep.target import build_target
    from numpyro_onestep.training import draw, train

    # One sampler per run: the papers' methods know no labels.
    arguments = row.load(data_dir)
    began = time.perf_counter()
    target = build_target(jax.random.key(seed), row.model, (), arguments)
    method = dataclasses.replace(methods(target.dim)[name], max_modes=1)
    mixture, history = train(target, jax.random.key(seed), method, time_limit=limit)
    (sampler,) = mixture.components
    wall, gradients = time.perf_counter() - began, history.num_gradients
    label = ""
    if verdict:
        chunk = chunk_size(target.dim, method.chunk_width, method.num_points)
        run = finish(
            Fit(target, mixture, history, chunk, (), arguments),
            jax.random.key(2000 + seed),
            jax.random.key(3000 + seed),
            num_chains=4,
            num_samples=1000,
            num_steps=method.num_sampling_steps,
            posterior="weighted",
        )
        label = run.verdict.label
    line = {
        "method": name,
        "target": row.name,
        "seed": seed,
        "limit": limit,
        "wall": wall,
        "gradients": gradients,
        "verdict": label,
        "updates": len(history.losses),
        "log_z": row.log_z,
        "log_z_error": row.log_z_error,
        "steps": {},
    }
    # From here on in the coordinates of the sampler.
    target = mixture.target(target, 0)
    key = jax.random.key(1000 + seed)
    chunk_key = jax.random.fold_in(key, 0)  # what trace weights draw their only chunk with
    stochastic = method.num_sampling_steps > 1
    num_draws = NUM_DRAWS_LARGE if method.num_points == NUM_TRAINED_LARGE else NUM_DRAWS
    all_steps = STEPS if verdict else COMPARED_STEPS
    for num_steps in (method.num_sampling_steps,) if stochastic else all_steps:
        draws = draw(target, sampler.affine, sampler.steps(target, num_steps), chunk_key, num_draws)
        log_weight = np.asarray(draws.log_weight, np.float64)
        _, pareto_k = psis(log_weight)
        found = evidence(log_weight, draws.sign, pareto_k=pareto_k)
        finite = log_weight[np.isfinite(log_weight)]
        entry = {
            "log_z": found.log_evidence,
            "se": found.se,
            "elbo": float(finite.mean()) if finite.size else float("nan"),
            "ess": ess(log_weight, draws.sign).fraction,
            "pareto_k": pareto_k,
            "folded": folded_fraction(np.asarray(draws.sign)),
        }
        if not stochastic:
            part = Part(target, sampler, None, 0.0)
            trace = trace_log_weights(
                [part], TraceLogDet(), key, num_draws, num_draws, num_steps=num_steps
            )
            entry["trace_log_z"] = evidence(trace).log_evidence
            entry["trace_elbo"] = float(np.nanmean(trace))
            if num_steps in COMPARED_STEPS:
                entry |= from_the_other_side(target, sampler, row, num_steps)
        if stochastic or num_steps in COMPARED_STEPS:
            entry |= distances(target, sampler, row, draws.image)
        line["steps"][str(num_steps)] = entry
    if not stochastic and target.dim <= MAX_DIM_OF_GAPS:
        line |= published_consistency.gaps(target, sampler, seed)
    return line
