"""Saved inferences: the same draws in another process, and nothing but the file's own model."""

import json
import os
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
from numpyro.infer import init_to_median, init_to_value
from quick import EFFECT, ERROR, QUICK, X, Y, line, run, schools

from numpyro_onestep import OneStepInference, compare_evidence
from numpyro_onestep.inference import saving
from numpyro_onestep.inference_data import group_dataset, group_names

NAMES = ["Choate", "Deerfield", "Phillips"]


@pytest.fixture(scope="module")
def fitted():
    options = {"coords": {"school": NAMES}, "init_strategy": init_to_median(num_samples=10)}
    return run(schools, ERROR, effect=EFFECT, options=options)


@pytest.fixture(scope="module")
def path(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "schools.onestep"
    fitted.save(path)
    return path


@pytest.fixture(scope="module")
def loaded(path):
    return OneStepInference.load(path, schools)


def test_a_fresh_process_draws_the_same(fitted, path):
    """The process gets the file and the model's code, not the data."""
    program = """
import sys, jax, numpy as np
from quick import schools
from numpyro_onestep import OneStepInference
draws = OneStepInference.load(sys.argv[1], schools).sample(jax.random.key(5), 700)
np.savez(sys.argv[2], log_weights=draws.log_weights, **draws.samples)
"""
    found = path.with_name("draws.npz")
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), str(Path(__file__).parent)]),
        # As in this process.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
    }
    command = [sys.executable, "-c", program, str(path), str(found)]
    subprocess.run(command, check=True, env=environment)
    theirs, ours = np.load(found), fitted.sample(jax.random.key(5), 700)
    assert_array_equal(theirs["log_weights"], ours.log_weights)
    for name, values in ours.samples.items():
        assert_array_equal(theirs[name], values)


def test_everything_comes_back(fitted, loaded):
    assert group_names(loaded.inference_data) == group_names(fitted.inference_data)
    for name in group_names(fitted.inference_data):
        one, other = (group_dataset(i.inference_data, name) for i in (fitted, loaded))
        assert one.identical(other), name
    assert dict(loaded.inference_data.attrs) == dict(fitted.inference_data.attrs)
    assert loaded.verdict == fitted.verdict
    for ours, theirs in (
        (fitted.get_samples(), loaded.get_samples()),
        (fitted.get_weighted_samples()[0], loaded.get_weighted_samples()[0]),
        (fitted.get_extra_fields(), loaded.get_extra_fields()),
    ):
        assert set(ours) == set(theirs)
        for name in ours:
            assert_array_equal(ours[name], theirs[name])
    assert (loaded.num_samples, loaded.num_chains, loaded.method) == (500, 4, QUICK)
    assert loaded._init_strategy.keywords == {"num_samples": 10}
    assert loaded.last_target.digest == fitted.last_target.digest
    table = compare_evidence({"before": fitted, "after": loaded}).table
    assert table["log_bayes_factor"].tolist() == [0.0, 0.0]


def test_draws_without_weights_and_in_more_steps(fitted, loaded):
    for options in ({"weights": False}, {"num_steps": 2}):
        ours, theirs = (i.sample(jax.random.key(6), 300, **options) for i in (fitted, loaded))
        for name in ours.samples:
            assert_array_equal(ours.samples[name], theirs.samples[name])


def test_saving_again_writes_the_same(path, loaded):
    """What was loaded is all there is: a copy of a copy is the copy."""
    again = path.with_name("again.onestep")
    loaded.save(again)
    contents = []
    for file in (path, again):
        with zipfile.ZipFile(file) as archive:
            contents.append({name: archive.read(name) for name in archive.namelist()})
    assert contents[0] == contents[1]


def test_another_model_or_other_data_are_refused(path):
    with pytest.raises(ValueError, match=r"expected the model that was fitted, with latent sites"):
        OneStepInference.load(path, line, X, y=Y)

    def wider(error, effect=None):
        mu = numpyro.sample("mu", dist.Normal(0.0, 6.0))
        tau = numpyro.sample("tau", dist.HalfNormal(5.0))
        with numpyro.plate("school", len(error)):
            eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
            theta = numpyro.deterministic("theta", mu + tau * eta)
            numpyro.sample("effect", dist.Normal(theta, error), obs=effect)

    with pytest.raises(ValueError, match="got one of another density"):
        OneStepInference.load(path, wider)
    with pytest.raises(ValueError, match="expected the data that the sampler was fitted to"):
        OneStepInference.load(path, schools, ERROR, effect=EFFECT + 1.0)
    with pytest.raises(ValueError, match="expected a NumPyro model"):
        OneStepInference.load(path, None)


def test_another_precision_is_refused(path):
    with (
        jax.enable_x64(True),
        pytest.raises(ValueError, match="expected a process in float32.*got one in float64"),
    ):
        OneStepInference.load(path, schools)


def changed(path, change):
    """A copy of the file with a changed header."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["header.json"])
    change(header)
    members["header.json"] = json.dumps(header).encode()
    copy = path.with_name("changed.onestep")
    with zipfile.ZipFile(copy, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return copy


def test_files_of_other_kinds_and_versions_are_refused(path, tmp_path):
    def older(header):
        header.update(version=0, library_version="0.0.1")

    with pytest.raises(ValueError, match="version 1; got version 0, written by .* 0.0.1"):
        OneStepInference.load(changed(path, older), schools)
    with pytest.raises(ValueError, match="expected a saved OneStepInference; got a saved 'other'"):
        OneStepInference.load(changed(path, lambda h: h.update(kind="other")), schools)

    def other_options(header):
        (entry,) = [v for k, v in header["content"]["dict"] if k == "options"]
        entry["dict"] = entry["dict"][1:]

    with pytest.raises(ValueError, match="the options of this version"):
        OneStepInference.load(changed(path, other_options), schools)
    cut = tmp_path / "cut.onestep"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off, damaged or of another kind"):
        OneStepInference.load(cut, schools)
    with pytest.raises(FileNotFoundError):
        OneStepInference.load(tmp_path / "none.onestep", schools)


def test_before_a_run_there_is_nothing_to_save(tmp_path):
    with pytest.raises(RuntimeError, match="call `run` first"):
        OneStepInference(line).save(tmp_path / "new.onestep")


class Table:
    """Data in an object of the user's own."""

    def __init__(self, x, y):
        self.x, self.y = x, y


def odd(table):
    """A parameter whose start depends on the key of the run, and so does the density."""
    shift = numpyro.param("shift", lambda key: jax.random.normal(key))
    slope = numpyro.sample("slope", dist.Normal(shift, 1.0))
    with numpyro.plate("n", len(table.x)):
        numpyro.sample("height", dist.Normal(slope * table.x, 1.0), obs=table.y)


@pytest.mark.slow
def test_parameters_are_kept_and_arguments_that_no_file_holds_given_again(tmp_path):
    table = Table(X, Y)
    fitted = run(odd, table, key=3)
    path = tmp_path / "table.onestep"
    fitted.save(path)
    with pytest.raises(ValueError, match=r"load\(path, model, \*args.*got Table as the model's"):
        OneStepInference.load(path, odd)
    loaded = OneStepInference.load(path, odd, table)
    ours, theirs = (i.sample(jax.random.key(1), 200) for i in (fitted, loaded))
    assert_array_equal(ours.log_weights, theirs.log_weights)


def test_options_that_no_file_holds_are_named(fitted, tmp_path):
    options, fitted._coords = fitted._coords, {"school": [object()] * 3}
    try:
        with pytest.raises(ValueError, match=r"got object as value\['options'\]\['_coords'\]"):
            fitted.save(tmp_path / "no.onestep")
    finally:
        fitted._coords = options
    assert not list(tmp_path.iterdir())


def test_initial_strategies():
    value = init_to_value(values={"mu": np.float32(1.0)})
    for strategy in (numpyro.infer.init_to_uniform, init_to_median(num_samples=7), value):
        form = saving.strategy_form(strategy)
        back = saving._strategy(form)
        assert getattr(back, "func", back) is getattr(strategy, "func", strategy)
        assert getattr(back, "keywords", {}) == getattr(strategy, "keywords", {})
    assert saving.strategy_form(lambda site: None) is None
    with pytest.warns(UserWarning, match="init_to_uniform takes its place"):
        assert saving._strategy(None) is numpyro.infer.init_to_uniform
