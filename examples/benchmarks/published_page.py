"""Tables of `docs/published_samplers.md`, and a figure, from the lines of the program."""

import json
import math
from collections.abc import Sequence
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


def verdicts(lines: list[dict], methods: Sequence[str]) -> str:
    """Evidence of the one-step samplers against the truth, and what the verdict says of it."""
    rows = []
    for x in sorted(lines, key=lambda x: (x["target"], x["method"], x["seed"])):
        if x["method"] not in methods or not x["verdict"] or x["log_z"] is None:
            continue
        one = x["steps"]["1"]
        error = one["log_z"] - x["log_z"]
        # Of the estimate and of the reference.
        se = math.hypot(one["se"], x["log_z_error"])
        within = abs(error) <= 3.0 * se
        rows.append(
            [
                x["target"],
                x["method"],
                str(x["seed"]),
                x["verdict"].replace("_", " "),
                number(one["log_z"], 3),
                number(error, 3),
                number(se, 3),
                "yes" if within else "no",
                "yes" if within or x["verdict"] != "reliable" else "NO",
            ]
        )
    head = ["target", "method", "seed", "verdict", "log Z", "error", "se", "within 3 se", "honest"]
    return table(head, rows)


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
    """What the consistency terms do: gaps by seed, their mean, and the mean's ratio to OSDS."""
    rows = []
    for target in sorted({x["target"] for x in lines if x["method"] in ABLATIONS[1:]}):
        means = {}
        for method in ABLATIONS:
            chosen = [x for x in lines if (x["method"], x["target"]) == (method, target)]
            chosen.sort(key=lambda x: x["seed"])
            if not chosen:
                continue
            cells = []
            for key in ("volume_gap", "end_points"):
                values = [x[key] for x in chosen]
                mean = float(np.mean(values))
                means.setdefault(key, mean)
                shown = ", ".join(number(value) for value in values)
                cells += [f"{shown} (mean {number(mean)})", number(means[key] / mean)]
            rows.append([target, method, *cells])
    head = ["target", "method", "log-volume gap", "ratio", "end points", "ratio"]
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
    """Replaces the tables between the page's markers, and the figure beside the lines."""
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
        "### Verdicts\n\nOne-step evidence against the truth; `honest` unless a `reliable` one is"
        " more than three standard errors off.\n\n" + verdicts(lines, ("OSDS", "SCDS", "CDDS")),
        "### What the consistency terms do\n\nOne step against 16 of the same network: mean"
        " absolute difference of the exact traces that the published weight adds up, and mean"
        " squared distance of the end points, for seeds in order; `ratio` is the mean of OSDS over"
        " that of the line.\n\n" + consistency(lines),
        END,
    ]
    page.write_text(before + "\n\n".join(parts) + after)
    figure(lines, results.with_suffix(".png"))
