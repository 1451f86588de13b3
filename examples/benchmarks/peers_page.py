"""Tables and figures of `compare_peers`, from its records."""

import itertools
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

OURS = "one-step"
NUTS = ("NUTS sequential", "NUTS vectorized", "nutpie", "nutpie flow")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks_peers.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
# A log Z counts as reached within this, and with no larger standard error of its own.
LOG_Z = 0.05
MAX_PARETO_K = 0.7


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers; 0 where one is not positive."""
    values = list(values)
    return math.exp(np.mean(np.log(values))) if values and min(values) > 0.0 else 0.0


def pick(records: list[dict], **wanted: object) -> list[dict]:
    """Records with these values."""
    return [r for r in records if all(r.get(k) == v for k, v in wanted.items())]


def in_order(values: Iterable) -> list:
    """Without repetitions, as they come."""
    return list(dict.fromkeys(values))


def reached(runs: list[dict]) -> bool:
    """Whether every run has its log Z within `LOG_Z`, and none says itself that it has not."""

    def one(r: dict) -> bool:
        error = r.get("log_z_error")
        return (
            error is not None
            and abs(error) <= LOG_Z
            and (r.get("log_z_se") or 0.0) <= LOG_Z
            and (r.get("pareto_k") or 0.0) < MAX_PARETO_K
            and r.get("verdict") != "unreliable"
        )

    return bool(runs) and all(map(one, runs))


def median(runs: list[dict], name: str) -> float | None:
    """Over the runs that have a value."""
    values = [r[name] for r in runs if r.get(name) is not None]
    return float(np.median(values)) if values else None


def rate(record: dict, worth: str = "ess") -> float:
    """Effective draws per second, everything included; 0 for a run without a result."""
    return (record.get(worth) or 0.0) / record["wall"] if "wall" in record else 0.0


def draws_ratios(
    records: list[dict], budget: int, worth: str = "ess"
) -> dict[str, tuple[float, str]]:
    """By model: our effective draws per second over those of the best NUTS variant, and its name.

    Paired by seed; the median over seeds counts. Only seeds that NUTS has been run with. Ours are
    those of the chains that are returned, or, by `kish`, of the weighted draws beside them.
    """
    found = {}
    for model in in_order(r["model"] for r in records):
        runs = pick(records, model=model, budget=budget)
        ratios = []
        for ours in pick(runs, method=OURS):
            others = [r for r in pick(runs, seed=ours["seed"]) if r["method"] in NUTS]
            best = max(others, key=rate, default=None)
            if best is not None and rate(best) > 0.0:
                ratios.append((rate(ours, worth) / rate(best), best["method"]))
        if ratios:
            found[model] = sorted(ratios)[(len(ratios) - 1) // 2]
    return found


def seconds_to_log_z(records: list[dict], model: str) -> dict[str, tuple[float, int]]:
    """By method that reaches it: least median seconds over budgets, and the budget."""
    found: dict[str, tuple[float, int]] = {}
    runs = [r for r in pick(records, model=model)]
    for method, budget in in_order((r["method"], r["budget"]) for r in runs):
        group = pick(runs, method=method, budget=budget)
        if reached(group):
            seconds = median(group, "evidence_wall")
            if method not in found or seconds < found[method][0]:
                found[method] = (seconds, budget)
    return found


def number(value: float | None, digits: int = 3) -> str:
    """Short; a dash for nothing."""
    if value is None:
        return "-"
    if value and abs(value) >= 1e5:
        return f"{value:.2e}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratio_line(text: str, ratios: dict[str, float], missing: str = "") -> str:
    """Geometric mean and least of ratios by model, as one item of a list."""
    if not ratios:
        return f"- {text}: no records yet."
    least = min(ratios, key=ratios.get)
    below = [model for model, value in ratios.items() if value < 1.0]
    behind = f"; behind on {len(below)} of {len(ratios)}" if below else ""
    return (
        f"- {text}: **{geometric_mean(ratios.values()):.2g}** (geometric mean of"
        f" {len(ratios)} models), least {ratios[least]:.2g} ({least}){behind}.{missing}"
    )


def summary(records: list[dict]) -> str:
    """Where this package stands, misses included."""
    lines, models = [], in_order(r["model"] for r in records)
    whose = {"ess": "", "kish": " (our weighted draws)"}
    for budget, worth in itertools.product((4000, 100_000), whose):
        ratios = {k: v[0] for k, v in draws_ratios(records, budget, worth).items()}
        text = f"effective draws{whose[worth]} per second over the best NUTS variant,"
        text += f" {budget:,} draws asked"
        none = [model for model, ratio in ratios.items() if ratio == 0.0]
        missing = f" No result of ours: {', '.join(none)}." if none else ""
        lines.append(ratio_line(text, {k: v for k, v in ratios.items() if v > 0.0}, missing))
    ratios, alone, failed = {}, [], []
    for model in models:
        seconds = seconds_to_log_z(records, model)
        others = [s for method, (s, _) in seconds.items() if method != OURS]
        if pick(records, model=model, method=OURS):
            if OURS not in seconds:
                failed.append(model)
            elif others:
                ratios[model] = min(others) / seconds[OURS][0]
            else:
                alone.append(model)
    missing = f" Not reached by us: {', '.join(failed)}." if failed else ""
    missing += f" Reached by no peer: {', '.join(alone)}." if alone else ""
    text = f"seconds of the fastest peer over ours, to a log Z within {LOG_Z}"
    lines.append(ratio_line(text, ratios, missing))
    ours = [r for r in pick(records, method=OURS) if r.get("gradients")]
    if ours:
        most = max(ours, key=lambda r: r["gradients"])
        lines.append(
            f"- target gradients of ours: {most['gradients']:,} at the most ({most['model']})."
        )
    return "\n".join(lines)


def versus(records: list[dict]) -> str:
    """Our ratios model by model."""
    by_draws = {budget: draws_ratios(records, budget) for budget in (4000, 100_000)}
    rows = []
    for model in in_order(r["model"] for r in records):
        cells = [model]
        for ratios in by_draws.values():
            ratio = ratios.get(model)
            none = f"no result ({ratio[1]})" if ratio else "-"
            cells.append(f"{ratio[0]:.2g} ({ratio[1]})" if ratio and ratio[0] else none)
        seconds = seconds_to_log_z(records, model)
        ours = seconds.pop(OURS, None)
        cells.append(f"{ours[0]:.1f}" if ours else "not reached")
        best = min(seconds, key=lambda name: seconds[name][0], default=None)
        cells.append(f"{seconds[best][0]:.1f} ({best}, {seconds[best][1]:,})" if best else "none")
        cells.append(f"{seconds[best][0] / ours[0]:.2g}" if best and ours else "-")
        rows.append(cells)
    head = ["model", "draws/s ratio, 4000", "draws/s ratio, 100,000"]
    head += ["seconds to log Z, ours", "fastest peer", "ratio"]
    return table(head, rows)


def notes(runs: list[dict]) -> str:
    """What a reader must know of the runs of one line."""
    parts = in_order(r["failed"] for r in runs if "failed" in r)
    parts += in_order(r["verdict"] for r in runs if "verdict" in r)
    divergences = median(runs, "divergences")
    if divergences:
        parts.append(f"{divergences:.0f} divergences")
    return ", ".join(parts)


def model_table(records: list[dict], model: str) -> str:
    """Every method and budget: medians over seeds."""
    rows = []
    runs = pick(records, model=model)
    for method, budget in in_order((r["method"], r["budget"]) for r in runs):
        group = pick(runs, method=method, budget=budget)
        wall, compiled, ess = (median(group, k) for k in ("wall", "compile", "ess"))
        rows.append(
            [
                method,
                f"{budget:,}",
                str(len(group)),
                number(wall),
                f"{compiled / wall:.0%}" if wall else "-",
                number(median(group, "densities")),
                number(median(group, "gradients")),
                number(median(group, "memory")),
                number(ess),
                number(ess / wall if ess and wall else None),
                number(median(group, "kish")),
                number(median(group, "pareto_k"), 2),
                number(median(group, "log_z_error"), 2),
                number(median(group, "log_z_se"), 2),
                number(median(group, "evidence_wall")),
                number(median(group, "mean_error"), 2),
                number(median(group, "sd_error"), 2),
                notes(group),
            ]
        )
    head = ["method", "budget", "runs", "wall s", "compile", "densities", "gradients", "MiB"]
    head += ["ESS", "ESS/s", "Kish", "k-hat", "log Z error", "se", "to log Z s"]
    head += ["mean error", "sd error", "notes"]
    return table(head, rows)


def methods() -> str:
    """Every method, its budgets and its settings."""
    import peers

    rows = []
    for peer in peers.PEERS:
        kind = "draws" if peer.asks_draws else "size"
        budgets = f"{', '.join(f'{b:,}' for b in peer.budgets)} ({kind})"
        rows.append([peer.name, budgets, peer.settings])
    return table(["method", "budgets", "settings"], rows)


def devices(records: list[dict]) -> dict[str, list[dict]]:
    """Records by where they were made."""
    groups: dict[str, list[dict]] = {}
    for r in records:
        # A run that was stopped before it could say.
        cores = r.get("cores", 0)
        name = f"{r['device']}, {cores} core{'s' * (cores > 1)}" if cores else "no device"
        groups.setdefault(name, []).append(r)
    return groups


def tables(records: list[dict]) -> str:
    """All of it, as markdown."""
    parts = ["## Methods", methods()]
    for device, runs in devices(records).items():
        seeds = in_order(sorted(r["seed"] for r in runs))
        parts.append(f"## Measured: {device}, seeds {', '.join(map(str, seeds))}")
        parts += [summary(runs), versus(runs)]
        for model in in_order(r["model"] for r in runs):
            parts += [f"### {model}", model_table(runs, model)]
    return "\n\n".join(parts)


def replace_tables(page: Path, text: str) -> None:
    """Puts a text between the markers of a page."""
    old = page.read_text()
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def write(records: list[dict], page: Path = PAGE) -> None:
    """Replaces the tables between the page's markers."""
    replace_tables(page, tables(records))


_STYLES = {
    OURS: ("black", "o", "-"),
    "NUTS sequential": ("tab:blue", "s", "-"),
    "NUTS vectorized": ("tab:cyan", "s", "-"),
    "nutpie": ("tab:green", "^", "-"),
    "nutpie flow": ("tab:olive", "^", "-"),
    "SVI MVN": ("tab:orange", "v", "--"),
    "SVI IAF": ("tab:red", "v", "--"),
    "SVI BNAF": ("tab:pink", "v", "--"),
    "BlackJAX SMC": ("tab:purple", "D", ":"),
    "BlackJAX nested": ("tab:brown", "D", ":"),
    "nautilus": ("0.4", "P", ":"),
    "dynesty": ("0.6", "P", ":"),
    "pocoMC": ("gold", "P", ":"),
}


def figure(records: list[dict], quantity: str = "ess"):
    """A curve per method over its budgets, a panel per model; returns matplotlib's figure.

    Args:
        records: of one device.
        quantity: "ess", effective draws against wall time, or "log_z", the root mean square error
            of the log evidence over seeds against the time to it.
    """
    import matplotlib.pyplot as plt

    models = in_order(r["model"] for r in records)
    columns = min(4, max(len(models), 1))
    rows = max(1, -(-len(models) // columns))
    chart, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.4 * columns, 3.1 * rows),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for axis in axes.flat[len(models) :]:
        axis.remove()
    handles: dict[str, object] = {}
    for axis, model in zip(axes.flat, models, strict=False):
        for method, (colour, marker, line) in _STYLES.items():
            points = curve(pick(records, model=model, method=method), quantity)
            if points:
                (handles[method],) = axis.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    marker=marker,
                    linestyle=line,
                    markersize=5,
                    linewidth=2.2 if method == OURS else 1.2,
                    zorder=3 if method == OURS else 2,
                )
        if quantity == "log_z":
            axis.axhline(LOG_Z, color="0.8", linewidth=1.0, zorder=1)
        axis.set(title=model.replace("_", " "), xscale="log", yscale="log")
    for axis in axes[:, 0]:
        label = {"ess": "effective draws", "log_z": "error of log evidence"}[quantity]
        axis.set_ylabel(label)
    for axis in axes[-1]:
        axis.set_xlabel("seconds, everything included")
    if handles:
        chart.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=min(len(handles), 7),
            frameon=False,
        )
    return chart


def curve(runs: list[dict], quantity: str) -> list[tuple[float, float]]:
    """Points `(seconds, value)` in order of budgets, of one method on one model."""
    points = []
    for budget in sorted({r["budget"] for r in runs}):
        group = pick(runs, budget=budget)
        if quantity == "ess":
            seconds, value = median(group, "wall"), median(group, "ess")
        else:
            seconds = median(group, "evidence_wall")
            errors = [r["log_z_error"] for r in group if r.get("log_z_error") is not None]
            value = float(np.sqrt(np.mean(np.square(errors)))) if errors else None
        if seconds and value:
            points.append((seconds, value))
    return points
