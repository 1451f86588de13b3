"""Tables of `docs/published_samplers.md`, and a figure, from the lines of the program."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import published_consistency
import published_line
import suite
from peers import records

RESULTS = Path(__file__).parent / "results" / "published_samplers.jsonl"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
STEPS = ("1", "2", "4", "8", "16")


def load() -> list[dict]:
    """The last line of every method, target and seed."""
    return records.load(RESULTS, lambda x: (x["method"], x["target"], x["seed"]))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; a sentence where it has no rows."""
    if not rows:
        return "Not measured yet."
    bars = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in bars)


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"


def of_seed_0(lines: list[dict]) -> list[dict]:
    """One line per target and method, in order."""
    chosen = [x for x in lines if x["seed"] == 0]
    return sorted(chosen, key=lambda x: x["target"])


def equal_budget(lines: list[dict]) -> str:
    """Method by target: evidence, bound and effective draws at the method's own steps."""
    rows = []
    for x in of_seed_0(lines):
        steps, one = next(iter(x["steps"].items()))
        truth = x["log_z"]
        rows.append(
            [
                x["target"],
                x["method"],
                steps,
                number(truth, 3),
                f"{number(one['log_z'], 3)} +- {number(one['se'], 3)}",
                number(None if truth is None else one["log_z"] - truth, 3),
                number(one["elbo"]),
                x["verdict"].replace("_", " ") or "-",
                number(one["ess"], 3),
                number(one["pareto_k"]),
                number(one["folded"], 3),
                str(x["updates"]),
                f"{x['gradients'] / 1e6:.2f} M",
                f"{x['limit']:.0f} s",
                f"{x['wall']:.0f} s",
            ]
        )
    head = "target method steps truth exact error ELBO verdict ESS k-hat folded updates gradients"
    return table([*head.split(), "limit", "wall"], rows)


def not_run(lines: list[dict]) -> str:
    """What is missing in a full table of methods by targets."""
    methods = tuple(published_line.methods())
    done = {(x["target"], x["method"]) for x in of_seed_0(lines)}
    missing = {
        row.name: [name for name in methods if (row.name, name) not in done] for row in suite.ROWS
    }
    none = [target for target, names in missing.items() if len(names) == len(methods)]
    some = [f"{x}: {', '.join(names)}" for x, names in missing.items() if names and x not in none]
    num_cells = len(suite.ROWS) * len(methods)
    num_run = num_cells - sum(map(len, missing.values()))
    text = f"{num_run} of {num_cells} lines ({len(suite.ROWS)} targets, {len(methods)} methods)."
    if some:
        text += f" Not run: {'; '.join(some)}."
    if none:
        text += f" Not run at all: {', '.join(none)}."
    return text


def by_steps(lines: list[dict]) -> str:
    """Bound and effective draws by number of steps."""
    shown = (x for x in of_seed_0(lines) if len(x["steps"]) != 1)
    return _step_table(shown, lambda s: f"{number(s['elbo'])} ({number(s['ess'])})")


def _step_table(lines: Iterable[dict], cell: Callable[[dict], str]) -> str:
    """One row per target and method, one column per number of steps."""
    rows = [
        [
            x["target"],
            x["method"],
            number(x["log_z"]),
            *(cell(s) if s else "-" for s in map(x["steps"].get, STEPS)),
        ]
        for x in lines
    ]
    return table(["target", "method", "truth", *STEPS], rows)


def other_side(lines: list[dict]) -> str:
    """Metrics of targets that can be sampled, at the method's own steps."""
    rows = []
    for x in of_seed_0(lines):
        one = next(iter(x["steps"].values()))
        if "mmd" not in one:
            continue
        # Bounds and shares from the other side are those of the points that could be inverted.
        columns = (("elbo", 2), ("eubo", 2), ("ess", 3), ("forward_ess", 3), ("inverted", 2))
        columns += (("mmd", 3), ("sinkhorn", 2))
        rows.append([x["target"], x["method"], *(number(one.get(k), d) for k, d in columns)])
    head = ["target", "method", "ELBO", "EUBO", "ESS", "forward ESS", "inverted", "MMD", "Sinkhorn"]
    return table(head, rows)


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
    shown = (x for x in of_seed_0(lines) if "trace_log_z" in next(iter(x["steps"].values())))
    return _step_table(
        shown, lambda s: f"{number(s['trace_log_z'] - s['log_z'])} ({number(s['log_z'])})"
    )


def consistency() -> str:
    """What the consistency terms do."""
    head = ["target", "term", "gap of", "updates", "with it", "without it", "ratio"]
    return table(head, published_consistency.rows(published_consistency.load()))


def figure(lines: list[dict]) -> Any:
    """Evidence of OSDS against the number of steps, published and exact, the truth as a line."""
    import matplotlib.pyplot as plt

    shown = [x for x in of_seed_0(lines) if x["method"] == "OSDS" and x["log_z"] is not None]
    columns = min(3, len(shown))
    num_rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        num_rows,
        columns,
        figsize=(3.6 * columns, 2.7 * num_rows),
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
        axis.set_title(x["target"].replace("_", " "), fontsize="medium")
    figure.supxlabel("steps of the same sampler")
    figure.supylabel("log evidence")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def write(page: Path) -> None:
    """Replaces the tables between the page's markers."""
    lines = load()
    text = page.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    parts = [
        BEGIN,
        "### Equal wall time\n\nOne step, or a whole path of the multi-step samplers. `error` is"
        " that of the exact log evidence, ESS the share of effective draws. The limit counts from"
        " the exploration on, compilation and, for CDDS, the teacher included: with no update left,"
        " the line is that of the Gaussian fit.\n\n" + equal_budget(lines),
        not_run(lines),
        "### Bound and effective draws by number of steps\n\nELBO in nats, the share of effective"
        " draws in brackets, of the same trained network. Paths of training have 16 steps.\n\n"
        + by_steps(lines),
        "### From the other side\n\nTargets that can be sampled: EUBO and forward ESS from 500 of"
        " their draws, as far as the map could be inverted there; distances of 500 unweighted"
        " draws to others of the target.\n\n" + other_side(lines),
        "### Bias of the published evidence\n\n"
        "Published less exact log evidence of the same draws, in nats, by number of steps; the"
        " exact one in brackets.\n\n" + bias(lines),
        "### Verdicts\n\nOne-step evidence against the truth; `honest` unless a `reliable` one is"
        " more than three standard errors off.\n\n" + verdicts(lines, ("OSDS", "SCDS", "CDDS")),
        "### What the consistency terms do\n\nOne step against 16 of the same network, `OSDS()`"
        " with all its objectives and without one of the terms: for volume consistency the mean"
        " absolute difference of the exact traces that the published weight adds up, for state"
        " consistency the mean squared distance of the end points; for seeds in order, and `ratio`"
        " that of their means. Equal numbers of updates, no limit of time. A step learns"
        " from a moving average of steps half as long, so that the averages' lags add up: with one"
        " over 500 updates in place of the 100 of these runs neither gap was halved.\n\n"
        + consistency(),
        END,
    ]
    page.write_text(before + "\n\n".join(parts) + after)
