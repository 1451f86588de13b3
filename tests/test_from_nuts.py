"""Scripts written for NUTS, changed by at most three lines, give the same estimates."""

import importlib.util
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size

from numpyro_onestep import OneStepInference

FOLDER = Path(__file__).parents[1] / "examples" / "from_nuts"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
MAX_CHANGED = 3


def changed_lines(diff):
    """Lines removed or added in each run of them, a line replaced by another counted once."""
    runs, last = [], " "
    for line in diff.splitlines():
        if line.startswith(("---", "+++", "@@")):
            last = " "
            continue
        if line[:1] in "+-" and last not in "+-":
            runs.append({"+": 0, "-": 0})
        if line[:1] in "+-":
            runs[-1][line[0]] += 1
        last = line[:1] or " "
    return sum(max(run.values()) for run in runs)


def changed(name, folder):
    """The script with its diff applied."""
    path = folder / f"{name}.py"
    path.write_text((FOLDER / f"{name}.py").read_text())
    diff = (FOLDER / f"{name}.diff").read_text()
    command = ["git", "apply", "--unsafe-paths", f"--directory={folder}", "-"]
    subprocess.run(command, input=diff, text=True, check=True, cwd=folder)
    return path


def run(path):
    spec = importlib.util.spec_from_file_location(f"{path.stem}_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(["--num-samples", "500", "--num-chains", "4"])


def by_chain(inference):
    samples = inference.get_samples(group_by_chain=True)
    return {name: np.asarray(draws, np.float64) for name, draws in samples.items()}


def test_there_are_five():
    assert len(SCRIPTS) == 5
    assert SCRIPTS == sorted(path.stem for path in FOLDER.glob("*.diff"))


def test_counting():
    assert changed_lines("--- a\n+++ b\n@@ x @@\n a\n-b\n-c\n+d\n e\n+f\n g\n-h\n") == 4


@pytest.mark.parametrize("name", SCRIPTS)
def test_at_most_three_lines_change(name, tmp_path):
    diff = (FOLDER / f"{name}.diff").read_text()
    assert 1 <= changed_lines(diff) <= MAX_CHANGED
    text = changed(name, tmp_path).read_text()
    assert "OneStepInference(" in text and not re.search(r"\b(MCMC|NUTS)\(", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_same_estimates(name, tmp_path):
    """Means and squares within five standard errors; at 40 scalars once in 20,000 runs."""
    before, after = run(FOLDER / f"{name}.py"), run(changed(name, tmp_path))
    assert isinstance(after, OneStepInference)
    assert after.verdict.label in ("reliable", "usable_with_weights")
    theirs, ours = (by_chain(inference) for inference in (before, after))
    assert set(theirs) == set(ours)
    for site in theirs:
        centre = theirs[site].mean((0, 1))
        for power in (1, 2):
            a, b = ((draws[site] - centre) ** power for draws in (theirs, ours))
            se = np.hypot(*(x.std((0, 1)) / np.sqrt(effective_sample_size(x)) for x in (a, b)))
            assert np.all(np.abs(a.mean((0, 1)) - b.mean((0, 1))) < 5.0 * se), (site, power)
