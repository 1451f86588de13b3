"""The main job, measured: every goal model, three seeds, each run a fresh process.

    python examples/benchmarks/main_job.py --data-dir DATA
    python examples/benchmarks/main_job.py --model seeds --seeds 0 1 2
    python examples/benchmarks/main_job.py --throughput

The wall time counts everything from the start of the process: imports, compilation, training
and sampling. Means and sds of every scalar are compared with the long NUTS runs under
`references/`; `--num-samples` is large enough that the noise of the draws themselves stays below
the bounds. A run meets its goals when the last column says so; else it names what it missed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import data
import reference
import suite

# The bounds that every model shares.
MEAN_ERROR, SD_ERROR, R_HAT = 0.05, 0.05, 1.01


def kish_fraction(log_weights: np.ndarray, sign: np.ndarray) -> float:
    """Kish effective sample size of `sign * exp(log_weights)`: (n,), as a share of n."""
    weights = sign * np.exp(log_weights - np.max(log_weights))
    return float(weights.sum() ** 2 / (weights**2).sum() / len(weights))


def against_reference(posterior: dict[str, np.ndarray], name: str) -> tuple[float, float]:
    """Worst error of a mean in reference sds, and worst relative error of an sd, over scalars."""
    long_run = reference.load(name)
    if long_run is None:
        return float("nan"), float("nan")
    mean_error = sd_error = 0.0
    for site, truth in long_run["sites"].items():
        if site not in posterior:  # coordinates of the long run's own reparametrisation
            continue
        draws = np.asarray(posterior[site], float)
        mean, sd = np.asarray(truth["mean"]), np.asarray(truth["sd"])
        mean_error = max(mean_error, np.max(np.abs(draws.mean(0) - mean) / sd))
        sd_error = max(sd_error, np.max(np.abs(draws.std(0) / sd - 1.0)))
    return float(mean_error), float(sd_error)


def run_one(
    row: suite.Row, seed: int, data_dir: str | None, *, num_samples: int, started: float
) -> dict:
    """One run in this process, which began at `started`; returns its line of the table."""
    import arviz as az
    import jax

    from numpyro_onestep import OneStepInference

    inference = OneStepInference(row.model, num_samples=num_samples, progress_bar=False)
    result = inference.run(jax.random.key(seed), **row.load(data_dir))
    wall = time.time() - started
    stats = result["sample_stats"]
    mean_error, sd_error = against_reference(inference.get_samples(), row.name)
    r_hat = az.rhat(result)
    log_weight, sign = (np.asarray(result["importance"][k], float) for k in ("log_weight", "sign"))
    return {
        "model": row.name,
        "seed": seed,
        "log_z": float(stats["log_evidence"]),
        "log_z_se": float(stats["log_evidence_se"]),
        "log_z_error": float(stats["log_evidence"]) - (np.nan if row.log_z is None else row.log_z),
        "ess": kish_fraction(log_weight, sign),
        "pareto_k": float(stats["pareto_k"]),
        "verdict": result.attrs["verdict"],
        "folded": float(np.mean(sign < 0.0)),
        "wall": wall,
        "mean_error": mean_error,
        "sd_error": sd_error,
        "r_hat": max(float(np.max(r_hat[name])) for name in result["posterior"].data_vars),
    }


def missed(row: suite.Row, line: dict) -> list[str]:
    """The goals that a line of the table misses, by name."""
    checks = {
        "mean": line["mean_error"] <= MEAN_ERROR,
        "sd": line["sd_error"] <= SD_ERROR,
        "r_hat": line["r_hat"] < R_HAT,
    }
    if row.goals is not None:
        goals = row.goals
        centre = row.log_z if goals.centre is None else goals.centre
        checks["log Z"] = abs(line["log_z"] - centre) <= goals.log_z
        checks["ESS"] = line["ess"] >= goals.ess
        checks["k-hat"] = line["pareto_k"] < goals.pareto_k
        checks["wall"] = line["wall"] <= goals.wall
    if row.source == "analytic":
        checks["3 se"] = abs(line["log_z_error"]) <= 3.0 * line["log_z_se"]
    return [name for name, met in checks.items() if not met]


HEADER = (
    f"{'model':22} {'seed':>4} {'log Z':>9} {'error':>8} {'se':>7} {'ESS':>5} {'k-hat':>6}"
    f" {'folded':>7} {'wall s':>7} {'mean/sd':>7} {'sd err':>7} {'r_hat':>6}  verdict, misses"
)


def table_line(row: suite.Row, line: dict) -> str:
    """One line of the printed table."""
    misses = missed(row, line)
    return (
        f"{line['model']:22} {line['seed']:4d} {line['log_z']:9.3f} {line['log_z_error']:+8.4f}"
        f" {line['log_z_se']:7.4f} {line['ess']:5.3f} {line['pareto_k']:6.3f}"
        f" {line['folded']:7.4f} {line['wall']:7.1f} {line['mean_error']:7.3f}"
        f" {line['sd_error']:7.3f} {line['r_hat']:6.3f}  {line['verdict']},"
        f" {'misses ' + ', '.join(misses) if misses else 'all met'}"
    )


def throughput(*, plain: int = 300_000, weighted: int = 40_000, repeats: int = 3) -> None:
    """Prints draws per second of `.sample` for eight schools, once compiled."""
    import jax

    from numpyro_onestep import OneStepInference

    row = suite.by_name("eight_schools")
    inference = OneStepInference(row.model, progress_bar=False)
    inference.run(jax.random.key(0), **row.load(None))
    for count, weights in ((plain, False), (weighted, True)):
        rates = []
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            fresh = inference.sample(jax.random.key(repeat), count, weights=weights)
            jax.block_until_ready(fresh.samples)
            rates.append(count / (time.perf_counter() - start))
        # The first call compiles.
        print(
            f"{count} draws {'with exact' if weights else 'without'} weights:"
            f" {np.median(rates[1:]):,.0f} per second"
            f" (first call, with compilation: {rates[0]:,.0f})",
            flush=True,
        )


def in_fresh_process(
    row: suite.Row, seed: int, data_dir: str | None, *, num_samples: int
) -> dict | str:
    """Runs one row in its own process; returns its line, or what it said when it failed."""
    command = [sys.executable, str(Path(__file__).resolve())]
    command += ["--one", row.name, "--seeds", str(seed), "--started", repr(time.time())]
    command += ["--num-samples", str(num_samples)]
    command += ["--data-dir", data_dir] if data_dir else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    """Runs what the command line asks for; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    goal_models = [row.name for row in suite.ROWS if row.goals is not None]
    parser.add_argument("--model", action="append", help="may be repeated; default: goal models")
    parser.add_argument("--all", action="store_true", help="every model of the suite")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data-dir", help=f"folder of CSV files (or {data.ENVIRONMENT})")
    parser.add_argument("--num-samples", type=int, default=10_000, help="per chain, of four")
    parser.add_argument("--throughput", action="store_true", help="only draws per second")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.throughput:
        throughput()
        return
    if options.one:
        row = suite.by_name(options.one)
        line = run_one(
            row,
            options.seeds[0],
            options.data_dir,
            num_samples=options.num_samples,
            started=options.started,
        )
        print(json.dumps(line))
        return
    names = [row.name for row in suite.ROWS] if options.all else options.model or goal_models
    print(HEADER, flush=True)
    for row in map(suite.by_name, names):
        try:
            row.load(options.data_dir)
        except FileNotFoundError as error:
            print(f"{row.name:22} skipped: {error}", flush=True)
            continue
        for seed in options.seeds:
            line = in_fresh_process(row, seed, options.data_dir, num_samples=options.num_samples)
            text = f"failed: {line}" if isinstance(line, str) else table_line(row, line)
            print(text if isinstance(line, dict) else f"{row.name:22} {seed:4d} {text}", flush=True)


if __name__ == "__main__":
    main()
