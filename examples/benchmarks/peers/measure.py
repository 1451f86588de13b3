"""What one run costs and what it is worth: a record of plain numbers.

Wall time starts after the imports and the loading of the data and ends when draws and evidence are
on the host. Compilation is the time within JAX's tracing, lowering and compiling, as JAX reports
it. Memory is the highest resident size of the process, interpreter and libraries included.
"""

import importlib.metadata
import math
import os
import platform
import resource
import time

import jax
import numpy as np

import reference
import suite
from peers.base import Evidence, Outcome, Peer
from peers.posterior import Posterior

_COMPILING = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
# Where the distribution's name is not that of the module.
_DISTRIBUTIONS = {"nautilus": "nautilus-sampler", "numpyro_onestep": "numpyro-onestep"}


class Compilation:
    """Adds up the time that JAX spends on compilation; nested spans count once."""

    def __init__(self) -> None:
        """Starts to listen, for the rest of the process."""
        self._spans: list[tuple[float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration: float, **_: object) -> None:
        if event in _COMPILING:
            now = time.perf_counter()
            self._spans.append((now - duration, now))

    def seconds(self, began: float, ended: float) -> float:
        """Length of the union of the spans within a stretch of `time.perf_counter`."""
        total, reached = 0.0, began
        for start, stop in sorted(self._spans):
            start, stop = max(start, reached), min(stop, ended)
            total += max(stop - start, 0.0)
            reached = max(reached, stop)
        return total


def run_one(
    row: suite.Row, peer: Peer, budget: int, seed: int, data_dir: str | None = None
) -> dict:
    """One run in this process; returns its record."""
    for module in peer.requires:
        __import__(module)
    arguments = row.load(data_dir)
    device = jax.devices()[0]  # starts the backend, before the clock
    compilation = Compilation()
    posterior = Posterior(row.model, arguments)
    began = time.perf_counter()
    outcome = peer.run(posterior, budget, seed)
    drawn = time.perf_counter()
    evidence = outcome.evidence() if callable(outcome.evidence) else outcome.evidence
    ended = time.perf_counter()
    record = {
        "model": row.name,
        "method": peer.name,
        "budget": budget,
        "seed": seed,
        "wall": drawn - began,
        "compile": compilation.seconds(began, drawn),
        "evidence_wall": ended - began,
        "densities": outcome.densities + (evidence.densities if evidence else 0),
        "gradients": outcome.gradients,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
    }
    stats = device.memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        record["device_memory"] = stats["peak_bytes_in_use"] / 2**20
    record |= quality(row, outcome, evidence) | outcome.extra
    return {name: _plain(value) for name, value in record.items()}


def quality(row: suite.Row, outcome: Outcome, evidence: Evidence | None) -> dict:
    """Effective draws, and errors against the reference."""
    found: dict = {}
    long_run = reference.load(row.name)
    names = sorted(set(long_run["sites"] if long_run else outcome.draws) & set(outcome.draws))
    draws = {name: outcome.draws[name] for name in names}
    if outcome.log_weights is not None:
        log_weights = np.where(np.isnan(outcome.log_weights), -np.inf, outcome.log_weights)
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        if outcome.independent:
            found["ess"] = 1.0 / float((weights**2).sum())
    else:
        weights = None
        if outcome.independent is False:
            found["ess"] = minimum_ess(draws)
    found["mean_error"], found["sd_error"] = errors(draws, weights, long_run)
    if evidence is not None:
        found |= {"log_z": evidence.log_z, "log_z_se": evidence.se}
        if row.log_z is not None:
            found["log_z_error"] = evidence.log_z - row.log_z
    return found


def minimum_ess(draws: dict[str, np.ndarray]) -> float:
    """Least bulk effective sample size over the scalars of draws `(chains, n, *event)`."""
    import arviz as az

    ess = az.ess(az.convert_to_dataset(draws))
    return min(float(np.min(ess[name])) for name in draws)


def errors(
    draws: dict[str, np.ndarray], weights: np.ndarray | None, long_run: dict | None
) -> tuple[float | None, float | None]:
    """Largest error of a mean and of an sd over scalars, both in posterior sds."""
    if long_run is None:
        return None, None
    worst_mean = worst_sd = 0.0
    for name, values in draws.items():
        truth = {k: np.asarray(v) for k, v in long_run["sites"][name].items()}
        flat = values.reshape(-1, *values.shape[2:]).astype(float)
        mean = np.average(flat, axis=0, weights=weights)
        sd = np.sqrt(np.average((flat - mean) ** 2, axis=0, weights=weights))
        worst_mean = max(worst_mean, float(np.max(np.abs(mean - truth["mean"]) / truth["sd"])))
        worst_sd = max(worst_sd, float(np.max(np.abs(sd / truth["sd"] - 1.0))))
    return worst_mean, worst_sd


def conditions(peer: Peer) -> dict:
    """Where this process runs, and with what."""
    device = jax.devices()[0]
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count()
    versions = {
        name: importlib.metadata.version(_DISTRIBUTIONS.get(name, name))
        for name in ("numpyro_onestep", "numpyro", "jax", *peer.requires)
    }
    return {
        "device": device.device_kind if device.platform != "cpu" else "cpu",
        "cores": cores,
        "python": platform.python_version(),
        "versions": versions,
    }


def _plain(value: object) -> object:
    """JSON numbers of five digits; null for what is not finite."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
