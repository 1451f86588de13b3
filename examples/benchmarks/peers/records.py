"""Records of runs: one line of JSON each; of several for one piece the last counts."""

import json
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results"


def key(record: dict) -> tuple:
    """What a piece of the measurement is: model, method, budget and seed."""
    return tuple(record[name] for name in ("model", "method", "budget", "seed"))


def load(path: Path, key: Callable[[dict], tuple] = key) -> list[dict]:
    """The records that count, in order of their first measurement; [] without a file."""
    if not path.exists():
        return []
    lines = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    return list({key(record): record for record in lines}.values())


def load_runs(path: Path) -> list[dict]:
    """The last line of every posterior and seed; [] without a file."""
    return load(path, lambda line: (line["name"], line["seed"]))


def append(path: Path, record: dict) -> None:
    """Adds a record; one line written at once, so that two programs may share the file."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
