"""The published one-step samplers, and what their weights are worth.

    python examples/benchmarks/published_samplers.py --null
    python examples/benchmarks/published_samplers.py --run --data-dir DATA --target seeds --seeds 0
    python examples/benchmarks/published_samplers.py --consistency --data-dir DATA --seeds 0 1 2
    python examples/benchmarks/published_samplers.py --verdicts --data-dir DATA
    python examples/benchmarks/published_samplers.py --page

`--null` is the check that needs no training: target = prior = N(0, I), untrained network, where
the evidence must be 0. `--run` trains each method on each target under one limit of wall time,
every run in a fresh process, and reports, for 1 and 16 steps of the same sampler (with `--verdict`
2, 4 and 8 too): evidence by exact weights and by the published trace weights, bound, effective
draws and folds; further how far the one-step sampler is from its own 16 steps, in end points and in
log-volume; and where the target can be sampled, the upper bound, the forward share of effective
draws and distances of the unweighted draws (see `metrics`). Its lines are kept in
`results/published_samplers.jsonl`.
`--verdicts` runs those lines that are not kept yet and prints how far the evidence of each
published one-step sampler is from the truth, and what the verdict says of it. `--consistency` does
the same for what the consistency terms of OSDS do, for equal numbers of updates. `--page` turns all
lines into the tables of `docs/published_samplers.md`; its figure is drawn when the page is built.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import published_consistency
import published_line
import published_page
import suite

PAGE = Path(__file__).parents[2] / "docs" / "published_samplers.md"
VERDICT_TARGETS = ("seeds", "funnel", "gaussian_mixture_9", "gaussian_mixture_40", "ionosphere")
PUBLISHED = ("OSDS", "SCDS", "CDDS")


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


def in_fresh_process(
    name: str, target: str, seed: int, options: argparse.Namespace, *, verdict: bool
) -> None:
    """Runs one line in its own process; prints it and keeps it."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", name, "--target", target]
    command += ["--seeds", str(seed), "--limit", str(options.limit)]
    command += ["--data-dir", options.data_dir] if options.data_dir else []
    command += ["--verdict"] if verdict else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        print(f"{name:32} {target:20} {seed:4d} failed: {last[0]}", flush=True)
        return
    text = done.stdout.strip().splitlines()[-1]
    published_page.RESULTS.parent.mkdir(exist_ok=True)
    with published_page.RESULTS.open("a") as file:
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


def run_missing(names: Sequence[str], targets: Sequence[str], options: argparse.Namespace) -> None:
    """Runs what is not kept yet, judged."""
    done = {(x["method"], x["target"], x["seed"]) for x in published_page.load()}
    for target in options.target or targets:
        for seed in options.seeds:
            for name in options.method or names:
                if (name, target, seed) not in done:
                    in_fresh_process(name, target, seed, options, verdict=True)


def main(argv: list[str] | None = None) -> None:
    """Runs what the command line asks for; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--null", action="store_true", help="the check without training")
    parser.add_argument("--run", action="store_true", help="train and report")
    parser.add_argument("--consistency", action="store_true", help="what its terms do")
    parser.add_argument("--verdicts", action="store_true", help="evidence, truth and verdict")
    parser.add_argument("--page", action="store_true", help="tables of the docs page")
    parser.add_argument("--method", action="append", help="may be repeated; default: all")
    parser.add_argument("--target", action="append", help="may be repeated; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of training")
    parser.add_argument(
        "--verdict", action="store_true", help="judge every run, and measure all numbers of steps"
    )
    parser.add_argument("--data-dir", help="folder of CSV files")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        row = suite.by_name(options.target[0])
        line = published_line.run_one(
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
        for name in options.method or published_line.methods():
            for seed in options.seeds:
                in_fresh_process(name, target, seed, options, verdict=options.verdict)
    if options.consistency:
        for seed in options.seeds:
            for name in options.target or published_consistency.TARGETS:
                published_consistency.run(suite.by_name(name), seed, options.data_dir)
        print(published_page.consistency())
    if options.verdicts:
        run_missing(PUBLISHED, VERDICT_TARGETS, options)
        print(published_page.verdicts(published_page.load(), PUBLISHED))
    if options.page:
        published_page.write(PAGE)


if __name__ == "__main__":
    main()
