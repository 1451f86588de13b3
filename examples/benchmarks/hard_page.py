"""Tables of the hard posteriors, from the kept lines of `adversarial`."""

from collections.abc import Sequence
from pathlib import Path

from hard import HardRow
from peers import records
from peers_page import number, replace_tables, table

RECORDS = records.RESULTS / "adversarial.jsonl"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks_hard.md"
_WORDS = {
    "reliable": "right",
    "rescued": "right, rescued",
    "usable_with_weights": "right, with weights",
}


def load(path: Path = RECORDS) -> list[dict]:
    """The last line of every row and seed; [] without a file."""
    return records.load_runs(path)


def outcome(line: dict | None) -> str:
    """Of one run, for a cell."""
    if line is None:
        return "not run"
    if line["class"] == "failed":
        return line["verdict"]
    if line["class"] == "WRONG":
        return f"**WRONG**, {line['verdict']}"
    return _WORDS[line["verdict"]] if line["class"] == "right" else "refused"


def _cause(line: dict) -> str:
    """The error, or the gravest finding, which comes after the k-hat."""
    return line["reasons"][0 if line["verdict"] == "error" else 1]


def counts(lines: Sequence[dict]) -> str:
    """How many runs ended how, as a sentence."""
    number_of = {kind: sum(line["class"] == kind for line in lines) for kind in KINDS}
    said = ", ".join(f"{n} {KINDS[kind]} ({n / len(lines):.0%})" for kind, n in number_of.items())
    return f"{len(lines)} runs: {said}."


KINDS = {
    "right": "right",
    "refused": "refused",
    "failed": "without a result",
    "WRONG": "wrong and called reliable or usable",
}


def tables(lines: list[dict], rows: Sequence[HardRow]) -> str:
    """Counts, a line per posterior, and why runs were refused."""
    if not lines:
        return "No records yet."
    seeds = sorted({line["seed"] for line in lines})
    body, refusals = [], []
    for row in rows:
        runs = {line["seed"]: line for line in lines if line["name"] == row.name}
        known = [r for r in runs.values() if r["class"] in ("right", "WRONG")]
        worst = max(known, key=lambda r: abs(r["log_z"] - r["true"]), default=None)
        body.append(
            [
                f"`{row.name}`",
                str(row.dim),
                row.why,
                *(outcome(runs.get(seed)) for seed in seeds),
                number(worst and worst["log_z"] - worst["true"], 2),
                number(worst and worst["se"], 2),
            ]
        )
        refused = [r for r in runs.values() if r["class"] == "refused"]
        if refused:
            which = ", ".join(str(run["seed"]) for run in refused)
            refusals.append(f"* `{row.name}`, seed {which}: {_cause(refused[0])}")
    head = ["posterior", "d", "what makes it hard", *(f"seed {seed}" for seed in seeds)]
    parts = [counts(lines), table([*head, "largest error of log Z", "stated"], body)]
    if refusals:
        parts += ["## Refused, and why", "\n".join(refusals)]
    return "\n\n".join(parts)


def write(lines: list[dict], rows: Sequence[HardRow], page: Path = PAGE) -> None:
    """Replaces the tables between the page's markers."""
    replace_tables(page, tables(lines, rows))
