"""Files of nested values: what comes back, what is refused, what survives an accident."""

import dataclasses
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from numpyro_onestep import storage
from numpyro_onestep.importance import evidence
from numpyro_onestep.training.moves import MovedPoints

ABOUT = {"library_version": "0.0.7"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.onestep"


def through(path, value):
    storage.write(path, value, ABOUT)
    header, back = storage.read(path)
    assert header["library_version"] == "0.0.7" and header["version"] == storage.VERSION
    return back


VALUES = {
    "numbers": {"a": 1, "b": 0.1, "c": True, "d": None, "e": "text", 3: -0.0},
    "infinities": [float("inf"), -float("inf")],
    "nesting": (1, [2, (3, {"x": [4]})], {}),
    "numpy scalars": [np.float32(0.1), np.int64(7), np.bool_(True)],
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_plain_values_come_back(path, value):
    back = through(path, value)
    assert back == value and repr(back) == repr(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3)[:, ::2],
        np.array([np.nan, -0.0, np.inf], np.float32),
        np.array(["Choate", "Phillips"]),
        np.array(["2020-01-01"], "datetime64[ns]"),
        np.zeros((0, 3), np.int16),
        np.array(True),
        jnp.arange(3.0),
    ],
    ids=lambda a: f"{type(a).__name__}-{a.dtype}",
)
def test_arrays_come_back_bit_by_bit(path, array):
    back = through(path, {"x": array})["x"]
    assert isinstance(back, jax.Array) == isinstance(array, jax.Array)
    assert back.dtype == array.dtype and back.shape == array.shape
    assert np.asarray(back).tobytes() == np.ascontiguousarray(array).tobytes()


def test_keys_come_back(path):
    typed, legacy = through(path, (jax.random.key(3), jax.random.PRNGKey(3)))
    assert jax.random.normal(typed) == jax.random.normal(jax.random.key(3))
    assert jax.random.normal(legacy) == jax.random.normal(jax.random.PRNGKey(3))


def test_classes_of_the_package_come_back(path):
    moved = MovedPoints(*(jnp.full(2, float(i)) for i in range(5)))
    found = evidence(np.array([0.1, 0.2, -np.inf]))
    back = through(path, {"moved": moved, "evidence": found})
    assert isinstance(back["moved"], MovedPoints)
    assert all(np.array_equal(a, b) for a, b in zip(back["moved"], moved, strict=True))
    assert repr(back["evidence"]) == repr(found)


def test_equal_arrays_are_stored_once(path):
    x = np.random.default_rng(0).normal(size=10_000)
    through(path, [x, x.copy(), {"again": x}])
    assert path.stat().st_size < 1.1 * x.nbytes


@dataclasses.dataclass(frozen=True)
class Foreign:
    x: int = 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [lambda: 0]}, r"got function as value\['a'\]\[0\]"),
        ({"a": np.array([object()])}, r"plain array as value\['a'\]; got one of dtype object"),
        ([Foreign()], r"classes of numpyro_onestep; got .*Foreign as value\[0\]"),
    ],
)
def test_what_no_file_can_hold_is_named_and_writes_nothing(path, value, message):
    path.write_text("old")
    with pytest.raises(storage.UnknownValue, match=message):
        storage.write(path, value, ABOUT)
    assert path.read_text() == "old" and os.listdir(path.parent) == [path.name]


def test_the_header_is_plain_json(path):
    storage.write(path, {"x": np.arange(3), "y": float("nan")}, ABOUT)
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("header.json"), parse_constant=pytest.fail)
        members = archive.namelist()
    assert header["format"] == "numpyro_onestep" and len(members) == 2
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays[members[1].removesuffix(".npy")], np.arange(3))


def test_a_full_disk_leaves_the_old_file(path):
    storage.write(path, "good", ABOUT)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal: the write fails as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(OSError):
            storage.write(path, np.zeros(100_000), ABOUT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert storage.read(path)[1] == "good" and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_an_interruption_leaves_the_old_file(path, monkeypatch, moment):
    storage.write(path, "good", ABOUT)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            storage.write(path, "better", ABOUT)
    assert storage.read(path)[1] == "good" and os.listdir(path.parent) == [path.name]
    storage.write(path, "better", ABOUT)
    assert storage.read(path)[1] == "better"


KILLED = """
import os, signal, sys, zipfile
import numpy as np
from numpyro_onestep import storage

def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

owner, name = {"half": (storage, "_npy"), "fsync": (os, "fsync"), "replace": (os, "replace")}[
    sys.argv[2]
]
setattr(owner, name, killed)
storage.write(sys.argv[1], {"x": np.zeros(50_000)}, {"library_version": "0.0.7"})
"""


@pytest.mark.parametrize("moment", ["half", "fsync", "replace"])
def test_a_killed_process_leaves_the_old_file(path, moment):
    """No handler runs; the half-made file lies beside the old one under a name of its own."""
    storage.write(path, "good", ABOUT)
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", KILLED, str(path), moment]
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert storage.read(path)[1] == "good"
    (left,) = [name for name in os.listdir(path.parent) if name != path.name]
    assert left.endswith(".tmp")
    if moment == "half":
        with pytest.raises(ValueError, match="cut off, damaged or of another kind"):
            storage.read(path.with_name(left))
    storage.write(path, "better", ABOUT)
    assert storage.read(path)[1] == "better"


def rewritten(path, change):
    """The file with a changed header."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["header.json"])
    change(header)
    members["header.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_no_file_is_not_found(path):
    with pytest.raises(FileNotFoundError):
        storage.read(path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_versions_are_named(path, version):
    storage.write(path, 1, ABOUT)
    rewritten(path, lambda header: header.update(version=version))
    with pytest.raises(ValueError, match=f"version 1; got version {version!r}, written by .*0.0.7"):
        storage.read(path)


def test_foreign_files_are_refused(path):
    for content in (b"", b"text", pickle.dumps({"x": 1}), b"\x89HDF\r\n\x1a\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cut off, damaged or of another kind"):
            storage.read(path)
    np.savez(path.with_suffix(".npz"), x=np.zeros(3))
    with pytest.raises(ValueError, match="without a header"):
        storage.read(path.with_suffix(".npz"))
    storage.write(path, 1, ABOUT)
    rewritten(path, lambda header: header.update(format="other"))
    with pytest.raises(ValueError, match="header of another format"):
        storage.read(path)


def test_no_cut_and_no_flipped_byte_goes_unnoticed(path):
    value = {"x": np.random.default_rng(0).normal(size=200), "text": "y" * 50}
    storage.write(path, value, ABOUT)
    good = path.read_bytes()
    for size in range(0, len(good), 97):
        path.write_bytes(good[:size])
        with pytest.raises(ValueError):
            storage.read(path)
    for place in range(0, len(good), 13):
        bad = bytearray(good)
        bad[place] ^= 0x55
        path.write_bytes(bad)
        try:
            back = storage.read(path)[1]
        except (ValueError, NotImplementedError):
            continue
        # A byte that says nothing, such as a time stamp of the archive.
        np.testing.assert_array_equal(back["x"], value["x"])
        assert back["text"] == value["text"]


@pytest.mark.parametrize(
    "content",
    [
        {"class": ["os:system", {"command": "touch /tmp/never"}]},
        {"class": ["numpyro_onestep.storage:Path", {}]},
        {"class": ["numpyro_onestep.inference.facade:OneStepInference", {"model": None}]},
        {"class": ["numpyro_onestep.does_not_exist:X", {}]},
        {"class": ["numpyro_onestep.importance.evidence:Evidence", {"unknown": 1}]},
        {"call": ["print"]},
        {"array": ["0" * 64, False]},
        {"a": 1, "b": 2},
        [1, 2],
    ],
    ids=str,
)
def test_what_a_file_may_not_ask_for(path, content):
    storage.write(path, 1, ABOUT)
    rewritten(path, lambda header: header.update(content=content))
    with pytest.raises(ValueError):
        storage.read(path)


def test_pickled_arrays_are_not_read(path):
    storage.write(path, np.zeros(3), ABOUT)
    with zipfile.ZipFile(path) as archive:
        header, member = archive.read("header.json"), archive.namelist()[1]
    np.save(path.with_suffix(".npy"), np.array([{"an": "object"}]), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", header)
        archive.writestr(member, path.with_suffix(".npy").read_bytes())
    with pytest.raises(ValueError, match="[Oo]bject arrays"):
        storage.read(path)
