"""The comparison with other methods: its contract, its records, what it makes of them."""

import dataclasses
import functools
import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import potential_energy
from scipy import stats

from numpyro_onestep import ResampleMove

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks():
    """Imports a module of the benchmarks' folder by name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


# A size at which each still has to be right about two normal means, and the error of its log Z.
QUICK = {
    "NUTS vectorized": (1000, 0.03),
    "nutpie": (1000, 0.03),
    "SVI MVN": (1000, 0.03),
    "dynesty": (200, 0.5),
}
SLOW = {
    "NUTS sequential": (1000, 0.03),
    "nutpie flow": (1000, 0.03),
    "SVI IAF": (1000, 0.03),
    "SVI BNAF": (1000, 0.05),
    "BlackJAX SMC": (500, 0.2),
    "BlackJAX nested": (200, 0.4),
    "nautilus": (300, 0.05),
    "pocoMC": (256, 0.3),
}


def test_every_peer_is_tested(benchmarks):
    assert {p.name for p in benchmarks("peers").PEERS} == {"one-step", *QUICK, *SLOW}


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def test_contract(benchmarks, name):
    peer = benchmarks("peers").by_name(name)
    if peer.missing():
        pytest.skip(peer.missing())
    budget, tolerance = {**QUICK, **SLOW}[name]
    row = benchmarks("suite").by_name("normal_means")
    record = benchmarks("peers.measure").run_one(row, peer, budget, 0)
    # Bounds are five standard errors or more, so that one new seed in a million would fail.
    assert abs(record["log_z_error"]) < tolerance
    assert record["mean_error"] < 0.3 and record["sd_error"] < 0.3
    assert 0.0 <= record["compile"] <= record["wall"] <= record["evidence_wall"]
    assert record["densities"] + record["gradients"] >= budget
    assert record["memory"] > 50.0
    assert benchmarks("peers.measure").conditions(peer)["cores"] >= 1
    if name not in ("BlackJAX SMC", "pocoMC"):
        assert record["ess"] > 100.0
    assert "failed" not in benchmarks("peers.process").describe(record)


@pytest.mark.slow
def test_contract_of_this_package(benchmarks):
    onestep = benchmarks("peers.onestep")
    method = ResampleMove(
        width=16, num_blocks=2, num_points=500, num_updates=100, max_rounds=4, num_annealing=2
    )
    peer = dataclasses.replace(onestep.PEERS[0], run=functools.partial(onestep.run, method=method))
    row = benchmarks("suite").by_name("eight_schools")
    record = benchmarks("peers.measure").run_one(row, peer, 1000, 0)
    assert abs(record["log_z_error"]) < 0.02
    assert record["mean_error"] < 0.2 and record["sd_error"] < 0.2
    assert record["ess"] > 500.0 and record["kish"] > 0.9 * record["weighted_draws"]
    assert record["gradients"] > 1000 and record["rounds"] >= 2
    assert record["seconds_train"] + record["seconds_sample"] <= record["wall"]


@pytest.mark.parametrize("name", ["seeds", "brownian_motion", "eight_schools_centred"])
def test_log_joint_is_that_of_numpyro(benchmarks, name):
    row = benchmarks("suite").by_name(name)
    posterior = benchmarks("peers.posterior").Posterior(row.model, row.load(None))
    assert posterior.dim == row.dim
    x = posterior.start(jax.random.key(0))
    values = jax.flatten_util.ravel_pytree(posterior._start)[1](x)
    energy = potential_energy(row.model, (), row.load(None), values)
    assert posterior.log_joint(x) == pytest.approx(-float(energy), rel=1e-5)


def test_quantiles_of_the_prior(benchmarks):
    suite, posterior = benchmarks("suite"), benchmarks("peers.posterior")
    seeds = suite.by_name("seeds")
    of_seeds = posterior.Posterior(seeds.model, seeds.load(None))
    middle = jax.jit(of_seeds.from_cube)(jnp.full(26, 0.5))
    # In sorted order of sites: a0, a1, a12, a2, b, and the log of tau.
    np.testing.assert_allclose(middle[:25], 0.0, atol=1e-6)
    assert middle[25] == pytest.approx(np.log(stats.gamma(0.01, scale=100.0).ppf(0.5)), rel=1e-3)
    walk = suite.by_name("brownian_motion")
    upper = posterior.Posterior(walk.model, walk.load(None)).from_cube(
        jnp.full(32, stats.norm.cdf(1.0))
    )
    np.testing.assert_allclose(upper[:2], 2.0, rtol=1e-4)  # sds of LogNormal(0, 2)
    np.testing.assert_allclose(upper[2:], np.exp(2.0) * np.arange(1, 31), rtol=1e-4)


def test_draws_of_the_prior_have_its_quantiles(benchmarks):
    row = benchmarks("suite").by_name("eight_schools_centred")
    posterior = benchmarks("peers.posterior").Posterior(row.model, row.load(None))
    drawn = posterior.prior_draws(jax.random.key(0), 4000)
    cube = jax.random.uniform(jax.random.key(1), (4000, posterior.dim))
    mapped = jax.vmap(posterior.from_cube)(cube)
    for i in range(posterior.dim):
        # Ten tests at 1e-5: one new seed in 10,000 would fail.
        assert stats.ks_2samp(drawn[:, i], mapped[:, i]).pvalue > 1e-5


def record(method, model, budget=4000, seed=0, **values):
    common = {"method": method, "model": model, "budget": budget, "seed": seed}
    costs = {"wall": 10.0, "compile": 4.0, "evidence_wall": 10.0, "densities": 5, "gradients": 7}
    return {**common, **costs, "memory": 300.0, "device": "cpu", "cores": 1, **values}


def made_up():
    return [
        record("one-step", "a", ess=4000.0, kish=12000.0, log_z_error=0.01, log_z_se=0.001)
        | {"verdict": "reliable"},
        record("nutpie", "a", ess=1000.0, wall=5.0, log_z_error=0.03, evidence_wall=60.0),
        record("NUTS sequential", "a", ess=1000.0, wall=20.0, log_z_error=0.2),
        record("dynesty", "a", log_z_error=0.01, log_z_se=0.2, evidence_wall=1.0),
        record("SVI MVN", "a", log_z_error=0.01, log_z_se=0.01, pareto_k=0.9, evidence_wall=1.0),
        record("one-step", "b", ess=1000.0, log_z_error=0.3, log_z_se=0.01, gradients=900_000),
        record("nutpie", "b", ess=1000.0, wall=5.0, log_z_error=0.03),
        {"method": "nautilus", "model": "b", "budget": 1000, "seed": 0, "failed": "no result"}
        | {"device": "cpu", "cores": 1},
    ]


def test_ratios(benchmarks):
    page = benchmarks("peers_page")
    ratios = page.draws_ratios(made_up(), 4000)
    assert ratios == {"a": (2.0, "nutpie"), "b": (0.5, "nutpie")}
    # Of weighted draws there are more; none are known of the second run.
    ratios = page.draws_ratios(made_up(), 4000, "kish")
    assert ratios == {"a": (6.0, "nutpie"), "b": (0.0, "nutpie")}
    assert page.geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    # Luck is no accuracy: neither a wide error nor a heavy tail counts as reached.
    assert page.seconds_to_log_z(made_up(), "a") == {
        "one-step": (10.0, 4000),
        "nutpie": (60.0, 4000),
    }
    assert page.seconds_to_log_z(made_up(), "b") == {"nutpie": (10.0, 4000)}
    twice = [*made_up(), record("nutpie", "b", seed=1, log_z_error=0.06)]
    assert page.seconds_to_log_z(twice, "b") == {}


def test_tables_say_where_we_lose(benchmarks):
    text = benchmarks("peers_page").tables(made_up())
    assert "least 0.5 (b); behind on 1 of 2" in text
    assert "Not reached by us: b" in text
    assert "900,000 at the most (b)" in text
    assert "no result" in text and "100,000 draws asked: no records yet" in text


def test_figures_show_every_method_with_a_curve(benchmarks):
    from matplotlib import pyplot as plt

    page = benchmarks("peers_page")
    records = [*made_up(), record("nutpie", "a", budget=100_000, ess=9e4, wall=50.0)]
    chart = page.figure(records)
    first = chart.axes[0]
    assert [axis.get_title() for axis in chart.axes] == ["a", "b"]
    assert sorted(map(len, (line.get_xdata() for line in first.lines))) == [1, 1, 2]
    labels = {text.get_text() for text in chart.legends[0].get_texts()}
    assert labels == {"one-step", "nutpie", "NUTS sequential"}
    assert len(page.figure(records, "log_z").axes[0].lines) == 6  # with the bound
    plt.close("all")


def test_records_add_up_and_the_newest_counts(benchmarks, tmp_path):
    records = benchmarks("peers.records")
    path = tmp_path / "results" / "peers.jsonl"
    assert records.load(path) == []
    for line in (record("nutpie", "a", ess=1.0), record("nutpie", "b"), record("nutpie", "a")):
        records.append(path, line)
    assert [line["model"] for line in records.load(path)] == ["a", "b"]
    assert "ess" not in records.load(path)[0]


def test_a_run_beyond_its_limit_is_recorded_once(benchmarks, tmp_path, capsys):
    program, records = benchmarks("compare_peers"), tmp_path / "peers.jsonl"
    command = ["--run", "--model", "normal_means", "--method", "NUTS sequential", "--seeds", "0"]
    command += ["--records", str(records), "--limit"]
    program.main([*command, "0.2", "--budgets", "1000", "2000"])
    program.main([*command, "0.2", "--budgets", "1000"])
    assert capsys.readouterr().out.count("no result within 0 s") == 1
    assert len(records.read_text().splitlines()) == 1
    program.main([*command, "0.3", "--budgets", "1000"])
    assert len(records.read_text().splitlines()) == 2


@pytest.mark.slow
def test_a_run_in_a_fresh_process(benchmarks, tmp_path, capsys):
    program, records = benchmarks("compare_peers"), tmp_path / "peers.jsonl"
    command = ["--run", "--model", "normal_means", "--method", "NUTS sequential", "--seeds", "0"]
    program.main([*command, "--budgets", "1000", "--records", str(records)])
    (found,) = benchmarks("peers.records").load(records)
    assert abs(found["log_z_error"]) < 0.03 and found["compile"] > 0.1
    assert found["device"] and found["versions"]["numpyro"]
    program.main(["--table", "--list", "--records", str(records)])
    assert "### normal_means" in capsys.readouterr().out


def test_log_evidence_of_the_growing_gaussian(benchmarks):
    growth = benchmarks("growth")
    arrays = growth.gaussian_data(10)
    x, y = arrays["x"], arrays["y"]
    truth = stats.multivariate_normal(np.zeros(20), np.eye(20) + x @ x.T).logpdf(y)
    assert growth.row("gaussian-10").log_z == pytest.approx(truth, abs=1e-8)
    assert growth.row("linear-100").dim == 11 and growth.row("logistic-100").log_z is None
    assert growth.row("eight_schools").dim == 10
    with pytest.raises(ValueError, match="expected one of .*; got 'gaussian-x'"):
        growth.row("gaussian-x")
    for pieces in growth.AXES.values():
        assert all(growth.row(name).dim for name, _ in pieces if not name.endswith("000000"))


def test_exponents(benchmarks):
    page = benchmarks("growth_page")
    sizes = (10, 100, 1000)
    lines = [
        record(
            "one-step", f"gaussian-{d}", wall=d**2 / 100.0, compile=0.0, kish=3.0, weighted_draws=4
        )
        for d in sizes
    ]
    points = [(d, page.median([r], "wall")) for d, r in zip(sizes, lines, strict=True)]
    assert page.slopes(points) == [None, pytest.approx(2.0), pytest.approx(2.0)]
    text = page.tables(lines)
    assert "### dimension: one-step" in text and "| 1,000 | 1 | 10,000 |" in text
    chart = page.figure([*lines, record("one-step", "eight_schools", budget=1000)])
    assert [axis.get_xlabel() for axis in chart.axes] == ["dimension", "draws"]
    chart.clear()
