"""Every run in a process of its own: what `compare_peers` and `growth` share.

A piece of the measurement is (model, method, budget, seed). Its process prints one line of JSON,
which is added to a file of records; a piece with a record is not measured again unless asked for,
so that a measurement may be stopped and started at any time.
"""

import argparse
import faulthandler
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import data
from peers.records import append, key, load

Piece = tuple[str, str, int, int]
_TIMEOUT = "Timeout ("  # what faulthandler says


def add_options(parser: argparse.ArgumentParser, records: Path) -> None:
    """Those that say which pieces are run, where, and where their records are kept."""
    parser.add_argument("--run", action="store_true", help="measure what has no record yet")
    parser.add_argument("--again", action="store_true", help="measure what has one too")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cores", type=int, nargs="+", help="processor cores of every run")
    parser.add_argument("--limit", type=float, default=280.0, help="seconds per run")
    parser.add_argument("--launcher", default="", help="command before every run")
    parser.add_argument("--data-dir", help=f"folder of CSV files (or {data.ENVIRONMENT})")
    parser.add_argument("--records", type=Path, default=records)
    parser.add_argument("--child", help=argparse.SUPPRESS)


def child(options: argparse.Namespace, find_row: Callable) -> None:
    """Runs the piece `options.child` in this process; prints its record, or why it failed."""
    faulthandler.dump_traceback_later(options.limit, exit=True)
    if options.cores:
        os.sched_setaffinity(0, set(options.cores))
    import jax

    import peers
    from peers.measure import conditions, run_one

    model, method, budget, seed = json.loads(options.child)
    peer = peers.by_name(method)
    jax.config.update("jax_enable_x64", peer.x64)
    where = conditions(peer)
    # A run that does not come to its end has said where it was made.
    print(json.dumps(where), flush=True)
    try:
        record = run_one(find_row(model), peer, budget, seed, options.data_dir)
    except Exception as error:  # whatever a peer raises is its result
        text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        record = failure((model, method, budget, seed), text)
    print(json.dumps(record | where), flush=True)


def failure(piece: Piece, text: str) -> dict:
    """The record of a run without a result."""
    names = ("model", "method", "budget", "seed")
    return dict(zip(names, piece, strict=True)) | {"failed": text}


def in_fresh_process(program: str, piece: Piece, options: argparse.Namespace) -> dict | str:
    """The record of one piece, or a message where there is none to keep."""
    command = [*shlex.split(options.launcher), sys.executable, str(Path(program).resolve())]
    command += ["--child", json.dumps(piece), "--limit", str(options.limit)]
    command += ["--data-dir", options.data_dir] if options.data_dir else []
    command += ["--cores", *map(str, options.cores)] if options.cores else []
    # Compilation is part of what is measured.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment["CI"] = "true"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    printed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and printed:
        return printed[-1]
    if _TIMEOUT in done.stderr:
        where = printed[0] if printed else {}
        text = f"no result within {options.limit:.0f} s"
        return failure(piece, text) | where | {"limit": options.limit}
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return f"ended with status {done.returncode}: {last[0]}"


def measure(program: str, pieces: Iterable[Piece], options: argparse.Namespace) -> None:
    """Runs every piece without a record, prints it and keeps it.

    What has run out of time is not tried again within the same limit, nor at a larger budget or
    with another seed.
    """
    known = [] if options.again else load(options.records)
    late = [r for r in known if r.get("limit", 0.0) >= options.limit]
    done = {key(record) for record in known if "limit" not in record}
    for piece in pieces:
        model, method, budget, seed = piece
        if piece in done or any(
            (r["model"], r["method"]) == (model, method) and r["budget"] <= budget for r in late
        ):
            continue
        found = in_fresh_process(program, piece, options)
        if isinstance(found, dict):
            append(options.records, found)
            late += [found] if "limit" in found else []
        text = found if isinstance(found, str) else describe(found)
        print(f"{model:22} {method:16} {budget:7d} {seed:3d} {text}", flush=True)


def installed(names: Iterable[str] | None) -> list:
    """The peers of these names, or all, without those that cannot run here: they are named."""
    import peers

    chosen = [peers.by_name(name) for name in names or []] or peers.PEERS
    for peer in chosen:
        if peer.missing():
            print(f"{peer.name}: skipped, {peer.missing()}", flush=True)
    return [peer for peer in chosen if not peer.missing()]


def describe(record: dict) -> str:
    """A record on one line."""
    if "failed" in record:
        return f"failed: {record['failed']}"

    def shown(name: str, digits: str) -> str:
        value = record.get(name)
        return "-" if value is None else format(value, digits)

    return (
        f"{record['wall']:7.1f} s ({record['compile']:.0f} compiling), ESS {shown('ess', '.0f')},"
        f" k-hat {shown('pareto_k', '.2f')}, log Z off by {shown('log_z_error', '+.3f')}"
        f" (se {shown('log_z_se', '.3f')}, {record['evidence_wall']:.1f} s), mean"
        f" {shown('mean_error', '.3f')}, sd {shown('sd_error', '.3f')},"
        f" {record['gradients']:,} gradients, {record['memory']:.0f} MiB"
    )
