"""Tables and figure of `growth`, from its records."""

import math
from pathlib import Path

import numpy as np

from peers_page import devices, in_order, median, notes, number, pick, replace_tables, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks_growth.md"
# What the sizes of a kind of row count, and their name in the tables.
KINDS = {
    "gaussian": "dimension",
    "logistic": "rows, logistic",
    "linear": "rows, linear",
    "eight_schools": "draws",
}


def size(record: dict) -> int:
    """The quantity that varies."""
    kind, _, number_of = record["model"].partition("-")
    return int(number_of) if number_of else record["budget"]


def line(records: list[dict], kind: str, method: str) -> list[tuple[int, list[dict]]]:
    """Runs by size, in rising order."""
    runs = [r for r in pick(records, method=method) if r["model"].partition("-")[0] == kind]
    return [(s, [r for r in runs if size(r) == s]) for s in sorted({size(r) for r in runs})]


def running(runs: list[dict]) -> float | None:
    """Median seconds without compilation."""
    seconds = [r["wall"] - r["compile"] for r in runs if "wall" in r]
    return float(np.median(seconds)) if seconds else None


def slopes(points: list[tuple[int, float | None]]) -> list[float | None]:
    """Exponents between neighbours, the first None; None where a value is missing."""
    found: list[float | None] = [None]
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        known = y0 is not None and y1 is not None
        found.append(math.log(y1 / y0) / math.log(x1 / x0) if known else None)
    return found


def kind_table(records: list[dict], kind: str, method: str) -> str:
    """One line per size, with the exponents of its step."""
    lines = line(records, kind, method)
    steps = zip(
        slopes([(s, median(runs, "wall")) for s, runs in lines]),
        slopes([(s, running(runs)) for s, runs in lines]),
        slopes([(s, median(runs, "memory")) for s, runs in lines]),
        strict=True,
    )
    rows = []
    for (s, runs), (all_in, without, memory) in zip(lines, steps, strict=True):
        share = [r["kish"] / r["weighted_draws"] for r in runs if r.get("kish")]
        rows.append(
            [
                f"{s:,}",
                str(len(runs)),
                number(median(runs, "wall")),
                number(median(runs, "compile")),
                number(running(runs)),
                number(median(runs, "memory")),
                number(all_in, 2),
                number(without, 2),
                number(memory, 2),
                number(median(runs, "gradients")),
                number(median(runs, "ess")),
                number(float(np.median(share)) if share else None),
                number(median(runs, "pareto_k"), 2),
                number(median(runs, "log_z_error"), 2),
                number(median(runs, "log_z_se"), 2),
                notes(runs),
            ]
        )
    head = [KINDS.get(kind, kind), "runs", "wall s", "compile s", "rest s", "MiB"]
    head += ["exponent, wall", "rest", "memory", "gradients", "ESS", "weighted ESS share"]
    head += ["k-hat", "log Z error", "se", "notes"]
    return table(head, rows)


def tables(records: list[dict]) -> str:
    """All of it, as markdown."""
    parts = []
    for device, runs in devices(records).items():
        parts.append(f"## Measured: {device}")
        for kind in in_order(r["model"].partition("-")[0] for r in runs):
            for method in in_order(r["method"] for r in runs):
                if line(runs, kind, method):
                    parts += [f"### {KINDS.get(kind, kind)}: {method}"]
                    parts += [kind_table(runs, kind, method)]
    return "\n\n".join(parts) if parts else "No records yet."


def write(records: list[dict], page: Path = PAGE) -> None:
    """Replaces the tables between the page's markers."""
    replace_tables(page, tables(records))


def figure(records: list[dict]):
    """Seconds against each quantity, a panel each; returns matplotlib's figure."""
    import matplotlib.pyplot as plt

    kinds = [kind for kind in KINDS if any(r["model"].startswith(kind) for r in records)]
    chart, axes = plt.subplots(
        1,
        max(len(kinds), 1),
        figsize=(3.4 * max(len(kinds), 1), 3.3),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    handles: dict[str, object] = {}
    for axis, kind in zip(axes[0], kinds, strict=False):
        for i, method in enumerate(in_order(r["method"] for r in records)):
            lines = line(records, kind, method)
            for style, seconds in (("-", lambda runs: median(runs, "wall")), ("--", running)):
                points = [(s, seconds(runs)) for s, runs in lines if seconds(runs)]
                if points:
                    label = method + (", all" if style == "-" else ", without compilation")
                    (handles[label],) = axis.plot(
                        *zip(*points, strict=True), style, color=f"C{i}", marker="o", markersize=4
                    )
        axis.set(xlabel=KINDS[kind], xscale="log", yscale="log")
    axes[0, 0].set_ylabel("seconds")
    if handles:
        chart.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False
        )
    return chart
