"""Which kinds of models of NumPyro's documentation run, and what is each run worth?

    python examples/benchmarks/tutorials.py --list
    python examples/benchmarks/tutorials.py --rows linear growth --output tutorials.jsonl
    python examples/benchmarks/tutorials.py --page PAGE.md --output tutorials.jsonl

Every model is a small version of our own with generated data, run once with the default settings
in a process of its own. `--output` keeps one line per run; `--page` runs nothing and puts the
kept lines as a table between the two markers of a page, `BEGIN` and `END`.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax

import tutorial_regressions
import tutorial_structures
from named import named
from numpyro_onestep import OneStepInference
from tutorial_base import Kind

KINDS = (*tutorial_regressions.KINDS, *tutorial_structures.KINDS)
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
HEAD = ("kind", "NumPyro's page", "d", "verdict", "log evidence", "ESS", "k-hat")


by_name = partial(named, KINDS)


def run_one(kind: Kind, seed: int) -> dict:
    """One run with the defaults, an error included, as plain numbers and text."""
    began = time.perf_counter()
    inference = OneStepInference(kind.model, progress_bar=False)
    try:
        result = inference.run(jax.random.key(seed), **kind.load())
    except Exception as error:  # noqa: BLE001 - whatever a user would have met is the finding
        seconds = time.perf_counter() - began
        return {"name": kind.name, "error": f"{type(error).__name__}: {error}", "seconds": seconds}
    stats = result["sample_stats"]
    numbers = ("log_evidence", "log_evidence_se", "pareto_k", "ess_importance")
    return {
        "name": kind.name,
        "error": "",
        "seconds": time.perf_counter() - began,
        "dim": inference.last_target.dim,
        "draws": int(result["importance"].sizes["importance_draw"]),
        "verdict": inference.verdict.label,
        "reasons": list(inference.verdict.reasons),
        "note": inference.last_target.evidence_note,
        **{name: float(stats[name]) for name in numbers},
    }


def cells(line: dict) -> list[str]:
    """A row of the table."""
    kind = by_name(line["name"])
    if line["error"]:
        return [kind.name, kind.pages, "", line["error"], "", "", ""]
    note = " (see note)" if line["note"] else ""
    return [
        kind.name,
        kind.pages,
        str(line["dim"]),
        line["verdict"].replace("_", " "),
        f"{line['log_evidence']:.3f} +- {line['log_evidence_se']:.2g}{note}",
        f"{line['ess_importance'] / line['draws']:.2f}",
        f"{line['pareto_k']:.2f}",
    ]


def load(path: Path) -> list[dict]:
    """The last line of every kind, in the order of `KINDS`."""
    lines = [json.loads(text) for text in path.read_text().splitlines() if text.strip()]
    last = {line["name"]: line for line in lines}
    return [last[kind.name] for kind in KINDS if kind.name in last]


def write(page: Path, lines: list[dict]) -> None:
    """Replaces the table between the page's markers."""
    rows = [HEAD, ["---"] * len(HEAD), *map(cells, lines)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    text = page.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


def in_fresh_process(name: str, seed: int, limit: float) -> dict:
    """`run_one` in a process of its own, which may crash or take too long."""
    command = [sys.executable, __file__, "--one", name, "--seed", str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"not done after {limit:.0f} s", "seconds": limit}
    if done.returncode:
        return {"name": name, "error": done.stderr.strip().splitlines()[-1], "seconds": 0.0}
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    """Runs the program with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", help="names; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds per run")
    parser.add_argument("--output", type=Path, help="file of JSON lines to append to")
    parser.add_argument("--page", type=Path, help="page to put the table of --output into")
    parser.add_argument("--list", action="store_true", help="only name the kinds")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.page and not options.output:
        parser.error("expected --output, the file of runs, beside --page")

    if options.list:
        print("\n".join(f"{kind.name:15} {kind.pages}" for kind in KINDS))
    elif options.one:
        print(json.dumps(run_one(by_name(options.one), options.seed)))
    elif options.page:
        write(options.page, load(options.output))
    else:
        for name in options.rows or [kind.name for kind in KINDS]:
            line = in_fresh_process(name, options.seed, options.limit)
            print("  ".join([*cells(line), f"{line['seconds']:.0f} s"]), flush=True)
            if options.output:
                with options.output.open("a") as file:
                    file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
