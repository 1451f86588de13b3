"""Every room of the package imports only the rooms above it, and outside parts have one door."""

import ast
from pathlib import Path

import pytest

import numpyro_onestep

PACKAGE = Path(numpyro_onestep.__file__).parent
ROOMS = (
    "compilation",
    "host_random",
    "storage",
    "threads",
    "target",
    "preconditioner",
    "exploration",
    "schedules",
    "networks",
    "log_det",
    "tails",
    "flow",
    "objectives",
    "training",
    "transport",
    "importance",
    "diagnostics",
    "inference_data",
    "plots",
    "comparison",
    "inference",
    "calibration",
)
# What only one room may import: ArviZ has two incompatible lines, NumPyro's internals change.
DOORS = {
    "arviz": "inference_data",
    "arviz_base": "inference_data",
    "arviz_stats": "inference_data",
    "arviz_plots": "inference_data",
    "numpyro.handlers": "target",
    "numpyro.infer.util": "target",
    "numpyro.primitives": "target",
}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem != "__init__")


def imported(path: Path):
    """Yields the absolute dotted name of everything that the file imports, at any depth."""
    here = ("numpyro_onestep", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_up(path):
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert room in ROOMS, f"{room} is no room: expected one of {ROOMS}"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "numpyro_onestep":
            above = (*ROOMS[: ROOMS.index(room)], room)
            assert len(parts) > 1 and parts[1] in above, f"{room} imports {name}, which is below it"
        for outside, owner in DOORS.items():
            inside = f"{name}.".startswith(f"{outside}.")
            assert not inside or room == owner, f"{room} imports {name}; only {owner} may"
