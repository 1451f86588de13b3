"""Checkpoints: a run that was killed or stopped goes on to the same result, bit by bit."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_array_equal
from quick import QUICK, X, Y, line, run
from test_faults import fail_at

from numpyro_onestep import OneStepInference, storage
from numpyro_onestep.exploration import modes
from numpyro_onestep.training import journal, loop

KEY = jax.random.key(3)
METHOD = dataclasses.replace(QUICK, target_ess=1.0)  # all rounds
METHOD_ROUNDS = METHOD.max_rounds + METHOD.num_annealing


class Killed(BaseException):
    """Nothing in the package knows it."""


def sides(y):
    """Two modes, x[0] = 3 and x[0] = -3, with bends around them."""
    x = numpyro.sample("x", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x[0] ** 2 + 0.3 * x[1] ** 2, 1.0), obs=y)


def go(path, key=KEY, model=sides, data=9.0, method=METHOD, **options):
    return run(model, data, key=key, options={"method": method, "checkpoint": path, **options})


def counted(function):
    calls = []

    def counting(*args, **kwargs):
        calls.append(None)
        return function(*args, **kwargs)

    return counting, calls


@pytest.fixture(scope="module")
def whole():
    inference = go(None)
    assert len(inference._fit.trained.components) == 2
    return inference


def check_same(resumed, whole):
    for name, values in whole.get_samples().items():
        assert_array_equal(resumed.get_samples()[name], values)
    assert_array_equal(resumed.get_weighted_samples()[1], whole.get_weighted_samples()[1])
    one, other = (i.inference_data["sample_stats"] for i in (resumed, whole))
    for name in ("log_evidence", "log_evidence_se", "eubo", "missed_share"):
        assert_array_equal(one[name], other[name])
    assert resumed.verdict == whole.verdict
    ours, theirs = (dataclasses.replace(i._fit.history, seconds=0.0) for i in (resumed, whole))
    assert ours == theirs
    assert len(resumed._fit.trained.rivals) == len(whole._fit.trained.rivals)


def test_a_killed_run_goes_on_to_the_same_result(whole, tmp_path, monkeypatch):
    """In the third round of the second mode: the first one and the exploration are done."""
    number = METHOD_ROUNDS + 3
    path, left = tmp_path / "run.checkpoint", tmp_path / "left"
    improve = loop.improve

    def killed(*args):
        # What is written afterwards, a process that is killed does not write.
        if not left.exists() and len(calls) == number - 1:
            shutil.copy(path, left)
            raise Killed
        return counting(*args)

    counting, calls = counted(improve)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(loop, "improve", killed)
    with pytest.raises(Killed):
        go(path)
    os.replace(left, path)
    before = len(calls)
    explore, explored = counted(modes.temper)
    monkeypatch.setattr(modes, "temper", explore)
    monkeypatch.setattr(loop, "improve", counting)
    resumed = go(path)
    check_same(resumed, whole)
    assert not explored and len(calls) == 2 * METHOD_ROUNDS and before == number - 1
    assert not path.exists()


@pytest.mark.slow
def test_after_sigkill_another_process_goes_on(whole, tmp_path):
    """The operating system ends a process in the middle of a round: no handler runs."""
    program = """
import os, signal, sys
import test_checkpoint
from numpyro_onestep.training import journal, loop

def killed(*args):
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return counting(*args)

journal.SECONDS_BETWEEN = 0.0
counting, calls = test_checkpoint.counted(loop.improve)
loop.improve = killed
test_checkpoint.go(sys.argv[1])
"""
    path = tmp_path / "run.checkpoint"
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here))),
        # As in this process.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
    }
    command = [sys.executable, "-c", program, str(path), str(METHOD_ROUNDS + 2)]
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert path.exists()
    check_same(go(path), whole)
    assert not path.exists()


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The file of a run that was interrupted in its third round, and nothing beside it."""
    path = tmp_path_factory.mktemp("left") / "run.checkpoint"
    with pytest.MonkeyPatch.context() as context:
        context.setattr(loop, "improve", fail_at(3, KeyboardInterrupt(), loop.improve))
        assert go(path)._fit.history.stopped == "interrupted"
    assert os.listdir(path.parent) == [path.name]
    return path


def test_ctrl_c_and_the_time_limit_leave_what_there_is(whole, left, tmp_path):
    path = tmp_path / "run.checkpoint"
    shutil.copy(left, path)
    # Nothing is lost by an attempt that has no time at all.
    assert go(path, time_limit=1e-3)._fit.history.stopped == "time limit"
    check_same(go(path), whole)
    assert not path.exists()


def other_density(y):
    x = numpyro.sample("x", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x[0] ** 2 + 0.3 * x[1] ** 2, 1.0), obs=y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": jax.random.key(4)}, "another key"),
        # A legacy key of the same numbers is the same key.
        ({"data": 8.0, "key": jax.random.PRNGKey(3)}, "another data:"),
        ({"model": other_density}, r"another model \(its density\)"),
        ({"model": line, "data": X}, r"another model \(its latent sites\)"),
        ({"method": dataclasses.replace(METHOD, num_points=600)}, "another method"),
    ],
)
def test_of_another_run(left, change, message):
    before = left.read_bytes()
    if "model" in change and change["model"] is line:
        change = {**change, "model": lambda x: line(x, Y)}
    with pytest.raises(ValueError, match=f"expected the checkpoint of this run.*{message}"):
        go(left, **change)
    assert left.read_bytes() == before


def test_damaged_foreign_or_nowhere(whole, left, tmp_path):
    path = tmp_path / "run.checkpoint"
    content = left.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cut off, damaged"):
        go(path)
    with zipfile.ZipFile(left) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    flipped = bytearray(content)
    flipped[largest.header_offset + largest.file_size // 2] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match="damaged"):
        go(path)
    whole.save(path)
    with pytest.raises(ValueError, match="expected a checkpoint; got a saved 'OneStepInference'"):
        go(path)
    loaded = OneStepInference.load(path, sides)
    assert loaded._checkpoint is None
    with pytest.raises(ValueError, match="expected a checkpoint in a folder that exists"):
        go(tmp_path / "nowhere" / "run.checkpoint")


def test_a_full_disk_is_no_reason_to_stop(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(storage, "write", full)
    kept = journal.Journal(journal.CheckpointFile(tmp_path / "run.checkpoint", {}, {}))
    with pytest.warns(UserWarning, match="the checkpoint could not be written.*No space left"):
        kept.note("part", 1)
    assert kept.recall("part") == 1


def test_files_are_written_from_time_to_time(tmp_path, monkeypatch):
    path = tmp_path / "run.checkpoint"
    kept = journal.Journal(journal.CheckpointFile(path, {}, {})).within("component 0")
    kept.note("rounds", 1)
    assert not path.exists()
    monkeypatch.setattr(journal, "SECONDS_BETWEEN", 0.0)
    kept.note("rounds", 2)
    assert storage.read(path)[1] == {"component 0/rounds": 2}


def test_what_is_in_the_file(left):
    _, entries = storage.read(left)
    assert set(entries) == {"centring", "exploration", "component 0/rounds"}
    noted = entries["component 0/rounds"]
    assert noted.num_rounds == 2 and len(noted.history.ess_fraction) == 2
    assert all(np.isfinite(leaf).all() for leaf in noted.leaves)
