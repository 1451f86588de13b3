"""The table of posteriordb for the documentation, from the kept lines of `posteriordb`."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from hard_page import KINDS
from peers import records
from peers_page import number, replace_tables, table

RECORDS = records.RESULTS / "posteriordb.jsonl"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks_posteriordb.md"
_WORDS = {"reliable": "right", "usable_with_weights": "right, with weights"}


def load(path: Path = RECORDS) -> list[dict]:
    """The last line of every posterior and seed; [] without a file."""
    return records.load_runs(path)


def outcome(line: dict | None) -> str:
    """Of one run, for a cell."""
    if line is None:
        return "not run"
    if line["class"] == "right":
        return _WORDS[line["verdict"]]
    return {"refused": "refused", "failed": line["error"]}.get(line["class"], "**WRONG**")


def _worst(runs: Sequence[dict], name: str, choose=max) -> float | None:
    return choose((run[name] for run in runs if not run["error"]), default=None)


def _middle(runs: Sequence[dict], name: str) -> str:
    known = [run[name] for run in runs if not run["error"]]
    return f"{statistics.median(known):.0f}" if known else "-"


def tables(lines: list[dict], names: Sequence[str]) -> str:
    """Counts, and a line per posterior."""
    if not lines:
        return "No records yet."
    counted = {kind: sum(line["class"] == kind for line in lines) for kind in KINDS}
    said = ", ".join(f"{n} {KINDS[kind]}" for kind, n in counted.items())
    seeds = sorted({line["seed"] for line in lines})
    body = []
    for name in names:
        runs = {line["seed"]: line for line in lines if line["name"] == name}
        if not runs:
            continue
        every = list(runs.values())
        body.append(
            [
                f"`{name}`",
                str(next((run["dim"] for run in every if not run["error"]), "")),
                *(outcome(runs.get(seed)) for seed in seeds),
                *(number(_worst(every, key), 3) for key in ("share_error", "mean_error")),
                number(_worst(every, "ess", min), 3),
                number(_worst(every, "pareto_k"), 2),
                _middle(every, "seconds"),
            ]
        )
    head = ["posterior", "d", *(f"seed {seed}" for seed in seeds)]
    head += ["probability", "mean", "ESS", "k-hat", "seconds"]
    return f"{len(lines)} runs: {said}.\n\n{table(head, body)}"


def write(lines: list[dict], names: Sequence[str], page: Path = PAGE) -> None:
    """Replaces the table between the page's markers."""
    replace_tables(page, tables(lines, names))
