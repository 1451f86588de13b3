"""The published one-step samplers, and what their weights are worth.

    python examples/benchmarks/published_samplers.py --null
    python examples/benchmarks/published_samplers.py --run --data-dir DATA --target seeds --seeds 0
    python examples/benchmarks/published_samplers.py --page

`--null` is the check that needs no training: target = prior = N(0, I), untrained network, where
the evidence must be 0. `--run` trains each method on each target under one limit of wall time,
every run in a fresh process, and reports, for 1, 2, 4, 8 and 16 steps of the same sampler: evidence
by exact weights and by the published trace weights, bound, effective draws and folds; further how
far the one-step sampler is from its own 16 steps, in end points and in log-volume. Its lines are
kept in `results/published_samplers.jsonl`. `--page` turns them into the tables and the figure of
`docs/published_samplers.md`.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import suite

RESULTS = Path(__file__).parent / "results" / "published_samplers.jsonl"
DOCS = Path(__file__).parents[2] / "docs"
STEPS = (1, 2, 4, 8, 16)
NUM_DRAWS = 4000


def methods() -> dict:
    """Methods by the name under which they are reported, at a budget for two cores."""
    from numpyro_onestep import CDDS, DDS, DIS, OSDS, PIS, SCDS, ResampleMove
    from numpyro_onestep.objectives import JacobianPenalty, VolumeConsistency, WarmUp

    osds = OSDS()
    volume = (VolumeConsistency, JacobianPenalty)
    parts = {o: o.objective if isinstance(o, WarmUp) else o for _, o in osds.objectives}
    without = tuple(p for p in osds.objectives if not isinstance(parts[p[1]], volume))
    return {
        "default": ResampleMove(),
        "OSDS": osds,
        "OSDS without volume consistency": dataclasses.replace(osds, objectives=without),
        "OSDS without consistency": dataclasses.replace(osds, objectives=osds.objectives[:1]),
        "SCDS": SCDS(),
        "CDDS": CDDS(),
        "DIS": DIS(),
        "PIS": PIS(),
        "DDS": DDS(),
    }


def null_check() -> None:
    """Prints the evidence of the base under an untrained network, in nats; the truth is 0."""
    import jax
    import numpyro
    import numpyro.distributions as dist

    from numpyro_onestep import OSDS, TraceLogDet
    from numpyro_onestep.importance import ess, evidence
    from numpyro_onestep.inference.drawing import Part
    from numpyro_onestep.inference.trace import trace_log_weights
    from numpyro_onestep.preconditioner import Affine
    from numpyro_onestep.target import build_target
    from numpyro_onestep.training import TrainedSampler, draw

    def base(dim: int) -> None:
        numpyro.sample("x", dist.Normal(0.0, 1.0).expand([dim]).to_event(1))

    print("dim  steps  exact  published  published, score differentiated  'ESS' of published")
    for dim in (10, 26):
        target = build_target(jax.random.key(0), base, (dim,))
        flow = OSDS.published().flow(dim)
        affine = Affine(np.zeros(dim, np.float32), np.eye(dim, dtype=np.float32))
        params = flow.init(jax.random.key(0))
        sampler = TrainedSampler(affine, params, np.float32(1.0), flow)
        for num_steps in (1, 128):
            draws = draw(target, affine, sampler.steps(target, num_steps), jax.random.key(1), 500)
            exact = evidence(draws.log_weight, draws.sign).log_evidence
            found = [
                trace_log_weights(
                    [Part(target, sampler, None, 0.0)],
                    trace,
                    jax.random.key(1),
                    500,
                    500,
                    num_steps=num_steps,
                )
                for trace in (TraceLogDet(), TraceLogDet(None, differentiate_score=True))
            ]
            published, differentiated = (evidence(w).log_evidence for w in found)
            print(
                f"{dim:3d}  {num_steps:5d}  {exact:5.2f}  {published:9.2f}  {differentiated:30.2f}"
                f"  {ess(found[0]).fraction:18.3f}",
                flush=True,
            )


def run_one(
    name: str,
    row: suite.Row,
    seed: int,
    data_dir: str | None,
    limit: float,
    *,
    verdict: bool,
) -> dict:
    """Trains one method on one target in this process; returns its line."""
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
    method = dataclasses.replace(methods()[name], max_modes=1)
    arguments = row.load(data_dir)
    began = time.perf_counter()
    target = build_target(jax.random.key(seed), row.model, (), arguments)
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
            num_samples=NUM_DRAWS // 4,
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
        "rounds": len(history.ess_fraction),
        "log_z": row.log_z,
        "steps": {},
    }
    key = jax.random.key(1000 + seed)
    chunk_key = jax.random.fold_in(key, 0)  # what trace weights draw their only chunk with
    stochastic = method.num_sampling_steps > 1
    ends, volumes = {}, {}
    for num_steps in (method.num_sampling_steps,) if stochastic else STEPS:
        draws = draw(target, sampler.affine, sampler.steps(target, num_steps), chunk_key, NUM_DRAWS)
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
                [part], TraceLogDet(), key, NUM_DRAWS, NUM_DRAWS, num_steps=num_steps
            )
            entry["trace_log_z"] = evidence(trace).log_evidence
            entry["trace_elbo"] = float(np.nanmean(trace))
            ends[num_steps] = np.asarray(draws.image)
            volumes[num_steps] = trace - np.asarray(draws.log_density - draws.log_base, np.float64)
        line["steps"][str(num_steps)] = entry
    if not stochastic:
        last = STEPS[-1]
        distance = ((ends[1] - ends[last]) ** 2).sum(-1)
        line["end_points"] = float(np.mean(distance[np.isfinite(distance)]))
        gap = np.abs(volumes[1] - volumes[last])
        line["volume_gap"] = float(np.mean(gap[np.isfinite(gap)]))
    return line


def in_fresh_process(name: str, target: str, seed: int, options: argparse.Namespace) -> None:
    """Runs one line in its own process; prints it and keeps it."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", name, "--target", target]
    command += ["--seeds", str(seed), "--limit", str(options.limit)]
    command += ["--data-dir", options.data_dir] if options.data_dir else []
    command += ["--verdict"] if options.verdict else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        print(f"{name:32} {target:20} {seed:4d} failed: {last[0]}", flush=True)
        return
    text = done.stdout.strip().splitlines()[-1]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(text + "\n")
    line = json.loads(text)
    one = next(iter(line["steps"].values()))
    truth = "" if line["log_z"] is None else f" (true {line['log_z']:.3f})"
    trace = f" trace {one['trace_log_z']:.2f}" if "trace_log_z" in one else ""
    print(
        f"{name:32} {target:20} {seed:4d} {line['wall']:5.0f} s  log Z {one['log_z']:.3f} +- "
        f"{one['se']:.3f}{truth}{trace}  {line['verdict']}  ESS {one['ess']:.3f}  "
        f"k {one['pareto_k']:.2f}  "
        f"volume gap {line.get('volume_gap', float('nan')):.3f}  "
        f"end points {line.get('end_points', float('nan')):.3f}",
        flush=True,
    )


def main(argv: list[str] | None = None) -> None:
    """Runs what the command line asks for; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--null", action="store_true", help="the check without training")
    parser.add_argument("--run", action="store_true", help="train and report")
    parser.add_argument("--page", action="store_true", help="tables and figure of the docs page")
    parser.add_argument("--method", action="append", help="may be repeated; default: all")
    parser.add_argument("--target", action="append", help="may be repeated; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of training")
    parser.add_argument("--verdict", action="store_true", help="check every run and judge it")
    parser.add_argument("--data-dir", help="folder of CSV files")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        row = suite.by_name(options.target[0])
        line = run_one(
            options.one,
            row,
            options.seeds[0],
            options.data_dir,
            options.limit,
            verdict=options.verdict,
        )
        print(json.dumps(line))
        return
    if options.null:
        null_check()
    for target in (options.target or [row.name for row in suite.ROWS]) if options.run else []:
        for name in options.method or methods():
            for seed in options.seeds:
                in_fresh_process(name, target, seed, options)
    if options.page:
        import published_page

        published_page.write(RESULTS, DOCS)


if __name__ == "__main__":
    main()
