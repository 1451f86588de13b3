"""Tables and figure of `docs/published_samplers.md`, from the lines of `published_samplers.py`."""

import json
import math
from pathlib import Path

import numpy as np

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
ABLATIONS = ("OSDS", "OSDS without volume consistency", "OSDS without consistency")


def load(path: Path) -> list[dict]:
    """The last line of every method, target and seed."""
    lines = [json.loads(text) for text in path.read_text().splitlines() if text.strip()]
    return list({(x["method"], x["target"], x["seed"]): x for x in lines}.values())


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    bars = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in bars)


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def equal_budget(lines: list[dict]) -> str:
    """Method by target: evidence, bound and effective draws at the method's own steps."""
    rows = []
    for x in sorted(lines, key=lambda x: x["target"]):
        if x["seed"] != 0 or x["method"] in ABLATIONS[1:]:
            continue
        steps, one = next(iter(x["steps"].items()))
        rows.append(
            [
                x["target"],
                x["method"],
                steps,
                number(x["log_z"], 3),
                f"{number(one['log_z'], 3)} +- {number(one['se'], 3)}",
                number(one.get("trace_log_z")),
                number(one["elbo"]),
                x["verdict"].replace("_", " ") or "-",
                number(one["ess"], 3),
                number(one["pareto_k"]),
                number(one["folded"], 3),
                f"{x['gradients'] / 1e6:.2f} M",
                f"{x['wall']:.0f} s",
            ]
        )
    head = "target method steps truth exact published bound verdict ESS k-hat folded gradients wall"
    return table(head.split(), rows)


def bias(lines: list[dict]) -> str:
    """Published less exact evidence, by number of steps."""
    rows = []
    for x in sorted(lines, key=lambda x: x["target"]):
        if x["seed"] != 0 or "trace_log_z" not in next(iter(x["steps"].values())):
            continue
        if x["method"] in ABLATIONS[1:]:
            continue
        cells = [
            f"{number(s['trace_log_z'] - s['log_z'])} ({number(s['log_z'])})"
            for s in x["steps"].values()
        ]
        rows.append([x["target"], x["method"], number(x["log_z"]), *cells])
    return table(["target", "method", "truth", "1", "2", "4", "8", "16"], rows)


def consistency(lines: list[dict]) -> str:
    """What the consistency terms do, over seeds."""
    rows = []
    for target in sorted({x["target"] for x in lines if x["method"] in ABLATIONS[1:]}):
        for method in ABLATIONS:
            chosen = [x for x in lines if (x["method"], x["target"]) == (method, target)]
            chosen.sort(key=lambda x: x["seed"])
            if chosen:
                volume = ", ".join(number(x["volume_gap"]) for x in chosen)
                ends = ", ".join(number(x["end_points"]) for x in chosen)
                means = [np.mean([x[k] for x in chosen]) for k in ("volume_gap", "end_points")]
                shown = [f"{volume} (mean {number(means[0])})", f"{ends} (mean {number(means[1])})"]
                rows.append([target, method, *shown])
    head = ["target", "method", "log-volume, 1 against 16 steps", "end points, 1 against 16 steps"]
    return table(head, rows)


def figure(lines: list[dict], path: Path) -> None:
    """Evidence against the number of steps, published and exact, the truth as a line."""
    import matplotlib.pyplot as plt

    shown = [
        x for x in lines if x["method"] == "OSDS" and x["seed"] == 0 and x["log_z"] is not None
    ]
    columns = min(3, len(shown))
    num_rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        num_rows,
        columns,
        figsize=(4 * columns, 3.2 * num_rows),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(shown) :]:
        axis.remove()
    for axis, x in zip(axes.flat, shown, strict=False):
        steps = [int(k) for k in x["steps"]]
        exact = [s["log_z"] for s in x["steps"].values()]
        error = [2 * s["se"] if math.isfinite(s["se"]) else 0.0 for s in x["steps"].values()]
        axis.errorbar(steps, exact, error, marker="o", label="exact weights, 2 se", capsize=3)
        published = [s["trace_log_z"] for s in x["steps"].values()]
        axis.plot(steps, published, marker="s", color="tab:red", label="published trace weights")
        axis.axhline(x["log_z"], color="0.4", linestyle="--", label="truth")
        axis.set_xscale("log", base=2)
        axis.set_xticks(steps, [str(k) for k in steps])
        axis.set_title(x["target"].replace("_", " "))
        axis.set_xlabel("steps")
        axis.set_ylabel("log evidence")
    axes[0, 0].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write(results: Path, docs: Path) -> None:
    """Replaces the tables between the page's markers, and the figure."""
    lines = load(results)
    page = docs / "published_samplers.md"
    text = page.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    parts = [
        BEGIN,
        "### Equal wall time\n\n" + equal_budget(lines),
        "### Bias of the published evidence\n\n"
        "Published less exact log evidence of the same draws, in nats, by number of steps; the"
        " exact one in brackets.\n\n" + bias(lines),
        "### What the consistency terms do\n\n" + consistency(lines),
        END,
    ]
    page.write_text(before + "\n\n".join(parts) + after)
    figure(lines, docs / "published_samplers.png")
