"""Hard posteriors with known answers: is any run wrong and called reliable?

    python examples/benchmarks/adversarial.py
    python examples/benchmarks/adversarial.py --rows funnel banana --seeds 0 1 2 --reasons
    python examples/benchmarks/adversarial.py --records adversarial.jsonl --page

Every run is a fresh process with the default settings, and ends in one of four classes:

* right: the log evidence is within max(0.1, 3 se) of the truth, every marginal within the error
  that the effective draws allow (0.03 at least), and the verdict lets the result be used: the
  posterior draws where it says `reliable` or `rescued`, the weighted ones where
  `usable_with_weights`;
* refused: the verdict is `unreliable`, or an error was raised;
* WRONG: the verdict is any other, and the above does not hold. There must be none;
* failed: no result within the time allowed.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import hard_data
import hard_groups
import hard_modes
import hard_page
import hard_shapes
from hard import HardRow, Marginal, Samples, Truth
from named import named
from peers import records

ROWS: tuple[HardRow, ...] = (
    *hard_shapes.ROWS,
    *hard_modes.ROWS,
    *hard_data.ROWS,
    *hard_groups.ROWS,
)
CLASSES = ("right", "refused", "WRONG", "failed")
# Verdicts that let the posterior draws and the evidence be used as they are.
CLAIMS = ("reliable", "rescued")

# Bounds of a right answer; see the module's docstring.
LOG_Z_ERROR, NUM_SE, PROBABILITY_ERROR, NUM_SD = 0.1, 3.0, 0.03, 4.0


@dataclass(frozen=True)
class Finding:
    """What a run claims: natural logarithms, draws `(n, ...)` with weights `(n,)` summing to one.

    `effective` is the number of independent draws that they are worth.
    """

    verdict: str
    log_z: float
    se: float
    samples: Samples
    weights: np.ndarray
    effective: float


def worst_marginal(marginals: tuple[Marginal, ...], finding: Finding) -> tuple[float, str]:
    """Largest error of a probability in units of the allowed one, and a description of it."""
    worst, text = 0.0, ""
    for marginal in marginals:
        value = np.asarray(marginal.value(finding.samples), float)
        for point, truth in zip(marginal.points, marginal.probabilities, strict=True):
            found = float(finding.weights[value <= point].sum())
            noise = NUM_SD * math.sqrt(truth * (1.0 - truth) / max(finding.effective, 1.0))
            excess = abs(found - truth) / max(PROBABILITY_ERROR, noise)
            if not excess <= worst:
                worst = excess if math.isfinite(excess) else math.inf
                text = f"P({marginal.name} <= {point:.3g}) = {found:.3f}, not {truth:.3f}"
    return worst, text


def classify(truth: Truth, finding: Finding) -> str:
    """`right`, `refused` or `WRONG`."""
    error = abs(finding.log_z - truth.log_z)
    right = error <= max(LOG_Z_ERROR, NUM_SE * finding.se)
    right &= worst_marginal(truth.marginals, finding)[0] <= 1.0
    if finding.verdict == "unreliable":
        return "refused"
    return "right" if right else "WRONG"


def find(row: HardRow, seed: int, *, num_samples: int, **options) -> tuple[Finding, list[str]]:
    """Runs the inference; returns what it claims and the reasons of its verdict."""
    import jax

    from numpyro_onestep import OneStepInference

    inference = OneStepInference(
        row.model, num_samples=num_samples, progress_bar=False, log_likelihood=False, **options
    )
    result = inference.run(jax.random.key(seed), **row.load())
    stats, label = result["sample_stats"], inference.verdict.label
    effective = float(stats["ess_importance"])
    if label in CLAIMS:
        samples = {k: np.asarray(v) for k, v in inference.get_samples().items()}
        num = len(next(iter(samples.values())))
        weights = np.full(num, 1.0 / num)
        # A chain whose proposals are accepted with probability a repeats itself.
        effective = 0.5 * min(effective, num)
        if label == "rescued":
            effective = min(float(stats[f"nuts_ess_{part}"]) for part in ("bulk", "tail"))
    else:
        samples, log_weights = inference.get_weighted_samples()
        samples = {k: np.asarray(v) for k, v in samples.items()}
        weights = np.exp(log_weights - np.nanmax(log_weights))
        weights = np.nan_to_num(weights) / np.nansum(weights)
    log_z, se = (float(stats[name]) for name in ("log_evidence", "log_evidence_se"))
    finding = Finding(label, log_z, se, samples, weights, effective)
    return finding, [f"k-hat {float(stats['pareto_k']):.2f}", *inference.verdict.reasons]


def run_one(row: HardRow, seed: int, *, num_samples: int, **options) -> dict:
    """One run in this process; returns its line of the table."""
    began = time.perf_counter()
    truth = row.truth()
    line = {"name": row.name, "seed": seed, "true": truth.log_z}
    try:
        finding, reasons = find(row, seed, num_samples=num_samples, **options)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        empty = {"class": "refused", "verdict": "error", "log_z": math.nan, "se": math.nan}
        line |= empty | {"worst": math.nan, "where": "", "effective": 0.0, "reasons": [str(error)]}
    else:
        worst, where = worst_marginal(truth.marginals, finding)
        line |= {
            "class": classify(truth, finding),
            "verdict": finding.verdict,
            "log_z": finding.log_z,
            "se": finding.se,
            "worst": worst,
            "where": where,
            "effective": finding.effective,
            "reasons": reasons,
        }
    return line | {"wall": time.perf_counter() - began}


HEADER = (
    f"{'posterior':22} {'seed':>4} {'class':8} {'log Z':>11} {'error':>8} {'se':>7} {'draws':>6}"
    f" {'worst':>6} {'wall s':>6}  verdict; largest error of a probability, where above the bound"
)


def table_line(line: dict) -> str:
    """One line of the printed table; `worst` is in units of the allowed error."""
    if line["class"] == "failed":
        return f"{line['name']:22} {line['seed']:4d} failed: {line['verdict']}"
    where = f"; {line['where']}" if line["worst"] > 1.0 else ""
    return (
        f"{line['name']:22} {line['seed']:4d} {line['class']:8} {line['log_z']:11.3f}"
        f" {line['log_z'] - line['true']:+8.3f} {line['se']:7.4f} {line['effective']:6.0f}"
        f" {line['worst']:6.2f} {line['wall']:6.1f}  {line['verdict']}{where}"
    )


def in_fresh_process(name: str, seed: int, *, num_samples: int, limit: float) -> dict:
    """Runs one row in its own process; returns its line, with what it said if it failed."""
    failed = {"name": name, "seed": seed, "class": "failed", "reasons": []}
    command = [sys.executable, str(Path(__file__).resolve()), "--one", "--rows", name]
    command += ["--seeds", str(seed), "--num-samples", str(num_samples)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return failed | {"verdict": f"no result within {limit:.0f} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return failed | {"verdict": said[-1] if said else "no message"}
    return json.loads(done.stdout.strip().splitlines()[-1])


by_name = partial(named, ROWS)


def main(argv: list[str] | None = None) -> dict[str, int]:
    """Runs what the command line asks for; returns the number of runs per class."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", help="names; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-samples", type=int, default=1000, help="per chain, of four")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds per run")
    parser.add_argument("--reasons", action="store_true", help="print those of the verdict")
    parser.add_argument("--records", type=Path, help="keep lines there, skip what it holds")
    parser.add_argument("--page", action="store_true", help="write the docs page from --records")
    parser.add_argument("--list", action="store_true", help="only name the posteriors")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    rows = [by_name(name) for name in options.rows] if options.rows else ROWS
    if options.list:
        for row in rows:
            print(f"{row.name:22} {row.dim:4d} dimensions: {row.why}")
        return {}
    if options.one:
        print(json.dumps(run_one(rows[0], options.seeds[0], num_samples=options.num_samples)))
        return {}
    if options.page:
        hard_page.write(hard_page.load(options.records or hard_page.RECORDS), ROWS)
        return {}
    kept = hard_page.load(options.records) if options.records else []
    known = {(line["name"], line["seed"]): line for line in kept if line["class"] != "failed"}
    counts = dict.fromkeys(CLASSES, 0)
    print(HEADER, flush=True)
    for row in rows:
        for seed in options.seeds:
            line = known.get((row.name, seed))
            if line is None:
                line = in_fresh_process(
                    row.name, seed, num_samples=options.num_samples, limit=options.limit
                )
                if options.records:
                    records.append(options.records, line)
            counts[line["class"]] += 1
            print(table_line(line), flush=True)
            for reason in line["reasons"] if options.reasons else []:
                print(f"    - {reason}", flush=True)
    total = max(sum(counts.values()), 1)
    print(", ".join(f"{count} {name} ({count / total:.0%})" for name, count in counts.items()))
    return counts


if __name__ == "__main__":
    # WRONG is the one thing that must not happen.
    sys.exit(1 if main().get("WRONG") else 0)
