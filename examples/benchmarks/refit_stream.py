"""A stream of data sets of one shape: `refit` against a run for every batch.

    python examples/benchmarks/refit_stream.py
    python examples/benchmarks/refit_stream.py --batches 20 --rows 200

Every batch is a conjugate regression with coefficients of its own, so that its evidence is known.
"fresh" makes a new `OneStepInference` and runs it; "refit" passes the batch to an inference that
has run once, on a batch of its own before the stream, whose time is given apart. Both in one
process, in turns. The compilations that JAX logs are counted.
"""

import argparse
import logging
import time
import warnings

import jax
import numpy as np

import data
import models
import suite
from numpyro_onestep import OneStepInference


class _Compilations(logging.Handler):
    """Counts what `jax.log_compiles` reports."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("Compiling")


def timed(action, *args, **kwargs) -> tuple[float, int]:
    """Seconds and compilations that an action takes."""
    handler, logger = _Compilations(), logging.getLogger("jax")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with jax.log_compiles():
            began = time.perf_counter()
            action(*args, **kwargs)
            return time.perf_counter() - began, handler.count
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def line(kind: str, batch: int, inference: OneStepInference, truth: float, used: tuple) -> str:
    """One line of the printed table."""
    result, (seconds, compilations) = inference.inference_data, used
    stats, training = result["sample_stats"], result["training"]
    log_z, se = float(stats["log_evidence"]), float(stats["log_evidence_se"])
    share = float(stats["ess_importance"]) / result["importance"].sizes["importance_draw"]
    return (
        f"{batch:5d} {kind:6} {seconds:8.2f} {compilations:6d} {int(training['num_rounds']):6d}"
        f" {int(training['num_target_gradients']):10,} {log_z - truth:+9.4f} {se:7.4f}"
        f" {share:6.3f} {float(stats['pareto_k']):6.2f}  {result.attrs['verdict']}"
    )


def main(argv: list[str] | None = None) -> float:
    """Prints the table and returns how many times cheaper a refit is than a fresh run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of data and keys")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--columns", type=int, default=11)
    parser.add_argument("--skip-fresh", action="store_true", help="only the refits")
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", "the verdict on this run")
    prior = data.CONJUGATE_PRIOR

    def batch(seed: int) -> tuple[dict[str, np.ndarray], float]:
        arrays = data.conjugate(options.rows, options.columns, 1000 * (1 + options.seed) + seed)
        return arrays, suite.conjugate_truth(**arrays, **prior)[0]

    def key(i: int) -> jax.Array:
        return jax.random.key(1000 * options.seed + i)

    def fresh() -> OneStepInference:
        return OneStepInference(models.conjugate_regression, progress_bar=False)

    print(
        f"batch {'kind':6} {'seconds':>8} {'compil':>6} {'rounds':>6} {'gradients':>10}"
        f" {'log Z err':>9} {'se':>7} {'ESS':>6} {'k-hat':>6}  verdict",
        flush=True,
    )
    warm = fresh()
    arrays, truth = batch(0)
    first = timed(warm.run, key(0), **arrays, **prior)
    print(line("first", 0, warm, truth, first), flush=True)
    seconds: dict[str, list[float]] = {"fresh": [], "refit": []}
    for i in range(1, options.batches + 1):
        arrays, truth = batch(i)
        if not options.skip_fresh:
            cold = fresh()
            used = timed(cold.run, key(i), **arrays, **prior)
            seconds["fresh"].append(used[0])
            print(line("fresh", i, cold, truth, used), flush=True)
        used = timed(warm.refit, key(i), **arrays, **prior)
        seconds["refit"].append(used[0])
        print(line("refit", i, warm, truth, used), flush=True)
    refit, run = np.mean(seconds["refit"]), np.mean(seconds["fresh"] or [first[0]])
    print(f"mean seconds: fresh {run:.2f}, refit {refit:.2f}; ratio {run / refit:.1f}")
    return float(run / refit)


if __name__ == "__main__":
    main()
