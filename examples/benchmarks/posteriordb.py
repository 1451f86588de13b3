"""Posteriors of posteriordb: are the draws those of Stan's long runs, and does the verdict know?

    git clone https://github.com/stan-dev/posteriordb
    python examples/benchmarks/posteriordb.py --database posteriordb/posterior_database
    python examples/benchmarks/posteriordb.py --database ... --rows arK-arK --seeds 0 1 2
    python examples/benchmarks/posteriordb.py --page

Every posterior of the database that has reference draws and a model here, with default settings,
each run a process of its own. A run is *right* when, for every scalar, the share of its draws below
the reference's quantiles of 5, 25, 50, 75 and 95 % is within 0.05 of those, and *WRONG* when it is
not and the verdict is yet not `unreliable`. The noise of 4000 draws alone makes for 0.01 to 0.02.
Lines are kept under `results`, and `--page` makes the table of the documentation from them.
"""

import argparse
import json
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

import posteriordb_regressions
import posteriordb_structures
from named import named
from peers import records
from posteriordb_entry import Entry
from posteriordb_page import RECORDS, load, write

ENTRIES = (*posteriordb_regressions.ENTRIES, *posteriordb_structures.ENTRIES)
QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
BOUND = 0.05


by_name = partial(named, ENTRIES)


def unzipped(path: Path) -> dict | list:
    """The JSON inside a zip file of the database."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def about(database: Path, name: str) -> dict:
    """What the database says of a posterior."""
    return json.loads((database / "posteriors" / f"{name}.json").read_text())


def load_data(database: Path, name: str) -> dict:
    """Data of a posterior, as the database has them."""
    stored = about(database, name)["data_name"]
    return unzipped(database / "data" / "data" / f"{stored}.json.zip")


def load_reference(database: Path, name: str) -> dict[str, np.ndarray]:
    """Draws (10,000,) of every scalar of a posterior."""
    stored = about(database, name)["reference_posterior_name"]
    chains = unzipped(database / "reference_posteriors" / "draws" / "draws" / f"{stored}.json.zip")
    return {key: np.concatenate([chain[key] for chain in chains]) for key in chains[0]}


def scalars(posterior: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sites (draws, *event) as scalars (draws,) under Stan's names, `beta[1]`."""
    found = {}
    for site, values in posterior.items():
        values = np.asarray(values, float)
        for index in np.ndindex(values.shape[1:]):
            label = ",".join(str(i + 1) for i in index)
            found[f"{site}[{label}]" if index else site] = values[(slice(None), *index)]
    return found


def against(reference: dict[str, np.ndarray], draws: dict[str, np.ndarray]) -> dict:
    """Worst errors over scalars: of a probability at the reference's quantiles, mean, and sd.

    Raises:
        ValueError: if the draws lack a scalar of the reference.
    """
    if missing := sorted(set(reference) - set(draws)):
        raise ValueError(f"expected every scalar of the reference; got none of {missing}")
    shares, means, sds = {}, {}, {}
    for name, truth in reference.items():
        below = np.mean(draws[name][:, None] < np.quantile(truth, QUANTILES), 0)
        shares[name] = float(np.max(np.abs(below - QUANTILES)))
        means[name] = float(abs(draws[name].mean() - truth.mean()) / truth.std())
        sds[name] = float(abs(draws[name].std() / truth.std() - 1.0))
    worst = max(shares, key=shares.get)
    return {
        "share_error": shares[worst],
        "scalar": worst,
        "mean_error": float(np.max(list(means.values()))),
        "sd_error": float(np.max(list(sds.values()))),
    }


def run_one(entry: Entry, database: Path, seed: int) -> dict:
    """One run with the defaults, an error included, as plain numbers and text."""
    import jax

    from numpyro_onestep import OneStepInference

    line = {"name": entry.name, "seed": seed, "error": ""}
    began = time.perf_counter()
    inference = OneStepInference(entry.model, progress_bar=False)
    arguments = entry.prepare(load_data(database, entry.name))
    try:
        result = inference.run(jax.random.key(seed), **arguments)
    except Exception as error:  # noqa: BLE001 - whatever a user would have met is the finding
        return {**line, "class": "failed", "error": f"{type(error).__name__}: {error}"}
    stats = result["sample_stats"]
    line |= {
        "seconds": time.perf_counter() - began,
        "dim": inference.last_target.dim,
        "verdict": inference.verdict.label,
        "reasons": list(inference.verdict.reasons),
        "ess": float(stats["ess_importance"]) / result["importance"].sizes["importance_draw"],
        "pareto_k": float(stats["pareto_k"]),
        "log_z": float(stats["log_evidence"]),
        "se": float(stats["log_evidence_se"]),
        **against(load_reference(database, entry.name), scalars(inference.get_samples())),
    }
    return {**line, "class": judge(line)}


def judge(line: dict) -> str:
    """`right`, `refused` or `WRONG`."""
    if line["verdict"] == "unreliable":
        return "refused"
    return "right" if line["share_error"] <= BOUND else "WRONG"


def in_fresh_process(name: str, database: Path, seed: int, limit: float) -> dict:
    """`run_one` in a process of its own, which may crash or take too long."""
    command = [sys.executable, __file__, "--one", name, "--database", str(database)]
    command += ["--seeds", str(seed)]
    failed = {"name": name, "seed": seed, "class": "failed"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {**failed, "error": f"not done after {limit:.0f} s"}
    if done.returncode:
        return {**failed, "error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def printed(line: dict) -> str:
    """A line of the printed table."""
    head = f"{line['name']:42} {line['seed']}  {line['class']:8}"
    if line["error"]:
        return f"{head} {line['error']}"
    return (
        f"{head} d {line['dim']:3d}  {line['verdict']:20} {line['seconds']:5.0f} s"
        f"  ESS {line['ess']:.3f}  k-hat {line['pareto_k']:5.2f}  share {line['share_error']:.3f}"
        f" ({line['scalar']})  mean {line['mean_error']:.3f}  sd {line['sd_error']:.3f}"
    )


def main(argv: list[str] | None = None) -> None:
    """Runs the program with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", type=Path, help="folder `posterior_database` of a checkout")
    parser.add_argument("--rows", nargs="+", help="names; default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=float, default=600.0, help="seconds per run")
    parser.add_argument("--records", type=Path, default=RECORDS, help="file of JSON lines")
    parser.add_argument("--page", action="store_true", help="only write the page of the records")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.page:
        write(load(options.records), [entry.name for entry in ENTRIES])
        return
    if not options.database:
        parser.error("expected --database, the folder of posteriordb")
    if options.one:
        print(json.dumps(run_one(by_name(options.one), options.database, options.seeds[0])))
        return
    for name in options.rows or [entry.name for entry in ENTRIES]:
        for seed in options.seeds:
            line = in_fresh_process(by_name(name).name, options.database, seed, options.limit)
            print(printed(line), flush=True)
            records.append(options.records, line)


if __name__ == "__main__":
    main()
