"""posteriordb: data and references as it stores them, and the judge of a run."""

import importlib
import json
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from numpyro_onestep.target import build_target

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def posteriordb():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("posteriordb")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def database(tmp_path):
    """A database of one posterior: five lags of a series, as the real one stores it."""
    data = {"K": 2, "T": 8, "y": [0.3, -0.2, 0.5, 0.1, -0.4, 0.2, 0.0, 0.1]}
    names = ("alpha", "beta[1]", "beta[2]", "sigma")
    draws = np.random.default_rng(0).normal(size=(2, 4, 50))
    chains = [dict(zip(names, chain.tolist(), strict=True)) for chain in draws]
    about = {"data_name": "series", "reference_posterior_name": "other"}
    (tmp_path / "posteriors").mkdir()
    (tmp_path / "posteriors" / "arK-arK.json").write_text(json.dumps(about))
    for folder, name, content in (
        (tmp_path / "data" / "data", "series", data),
        (tmp_path / "reference_posteriors" / "draws" / "draws", "other", chains),
    ):
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / f"{name}.json.zip", "w") as archive:
            archive.writestr(f"{name}.json", json.dumps(content))
    return tmp_path


def test_a_posterior_is_read_as_the_database_has_it(posteriordb, database):
    entry = posteriordb.by_name("arK-arK")
    arguments = entry.prepare(posteriordb.load_data(database, entry.name))
    # The first lag stands before the second.
    np.testing.assert_allclose(arguments["lags"][0], [-0.2, 0.3])
    np.testing.assert_allclose(arguments["y"], [0.5, 0.1, -0.4, 0.2, 0.0, 0.1])
    reference = posteriordb.load_reference(database, entry.name)
    assert {name: values.shape for name, values in reference.items()} == {
        name: (100,) for name in ("alpha", "beta[1]", "beta[2]", "sigma")
    }
    target = build_target(jax.random.key(0), entry.model, (), arguments)
    sites = target.constrain(np.asarray(target.initial_points(jax.random.key(1), 3)))
    assert set(posteriordb.scalars(sites)) == set(reference)


def test_names_are_those_of_the_database_and_unique(posteriordb):
    names = [entry.name for entry in posteriordb.ENTRIES]
    assert len(set(names)) == len(names) == 46
    with pytest.raises(ValueError, match="expected one of .*arK-arK.*; got 'none'"):
        posteriordb.by_name("none")


def test_the_judge_sees_what_is_wrong(posteriordb):
    rng = np.random.default_rng(1)
    reference = {"a": rng.normal(size=10_000), "b[1]": rng.exponential(size=10_000)}
    fair = {"a": rng.normal(size=4000), "b[1]": rng.exponential(size=4000)}
    spoiled = fair["a"].copy()
    spoiled[:400] = np.nan
    cases = {
        "right": fair,
        "moved": {**fair, "a": fair["a"] + 0.3},
        "narrow": {**fair, "b[1]": 1.0 + 0.7 * (fair["b[1]"] - 1.0)},
        "NaN": {**fair, "a": spoiled},
    }
    for name, draws in cases.items():
        line = {"verdict": "reliable", **posteriordb.against(reference, draws)}
        assert posteriordb.judge(line) == ("right" if name == "right" else "WRONG"), name
        assert posteriordb.judge({**line, "verdict": "unreliable"}) == "refused"
    assert np.isnan(posteriordb.against(reference, cases["NaN"])["mean_error"])
    with pytest.raises(ValueError, match=r"got none of \['b\[1\]'\]"):
        posteriordb.against(reference, {"a": fair["a"]})


def test_the_page_counts_every_kind(posteriordb):
    page = importlib.import_module("posteriordb_page")
    line = {
        "name": "arK-arK",
        "seed": 0,
        "error": "",
        "class": "right",
        "verdict": "reliable",
        "dim": 7,
        "share_error": 0.0141,
        "mean_error": 0.036,
        "ess": 0.999,
        "pareto_k": 0.376,
        "seconds": 16.4,
    }
    failed = {"name": "arK-arK", "seed": 1, "class": "failed", "error": "not done after 600 s"}
    wrong = {**line, "seed": 2, "class": "WRONG", "share_error": 0.2}
    text = page.tables([line, failed, wrong], [entry.name for entry in posteriordb.ENTRIES])
    assert "3 runs: 1 right, 0 refused, 1 without a result, 1 wrong" in text
    (row,) = [row for row in text.splitlines() if row.startswith("| `arK-arK`")]
    assert "| 7 | right | not done after 600 s | **WRONG** | 0.2" in row
    assert page.tables([], []) == "No records yet."


def test_the_records_are_those_of_the_page(posteriordb):
    """Nothing on the page that no run has shown."""
    page = importlib.import_module("posteriordb_page")
    lines = page.load()
    names = [entry.name for entry in posteriordb.ENTRIES]
    assert {(line["name"], line["seed"]) for line in lines} == {
        (n, s) for n in names for s in range(3)
    }
    assert page.tables(lines, names) in page.PAGE.read_text()
