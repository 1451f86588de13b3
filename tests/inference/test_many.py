"""Several models, or one on several data sets, in one call."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import QUICK, Y
from scipy import stats

from numpyro_onestep import OneStepInference, compare_evidence, run_many
from numpyro_onestep.inference import facade
from numpyro_onestep.inference_data import group_dataset

KEY = jax.random.key(0)


def located(y):
    """A conjugate model whose evidence is known."""
    centre = numpyro.sample("centre", dist.Normal(0.0, 10.0))
    tilt = numpyro.sample("tilt", dist.Normal(0.0, 10.0))
    with numpyro.plate("n", len(y)):
        numpyro.sample(
            "y", dist.Normal(centre + tilt * jnp.linspace(-1.0, 1.0, len(y)), 1.0), obs=y
        )


def at_zero(y):
    """The same without a tilt."""
    centre = numpyro.sample("centre", dist.Normal(0.0, 10.0))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(centre, 1.0), obs=y)


def log_evidence(y, num_columns=2):
    design = np.stack([np.ones(len(y)), np.linspace(-1.0, 1.0, len(y))])[:num_columns]
    cov = np.eye(len(y)) + 100.0 * design.T @ design
    return stats.multivariate_normal(np.zeros(len(y)), cov).logpdf(y)


def inference(model=located, **options):
    defaults = {"method": QUICK, "progress_bar": False, "num_samples": 500}
    return OneStepInference(model, **{**defaults, **options})


def evidence(fitted):
    sample_stats = group_dataset(fitted.inference_data, "sample_stats")
    return float(sample_stats["log_evidence"]), float(sample_stats["log_evidence_se"])


@pytest.fixture(scope="module")
def fitted():
    """Two data sets of one shape, one of another, one that no model fits, and another model."""
    shared = inference()
    calls = []
    complete = facade.OneStepInference._complete

    def counted(self, *args, warm=None, **kwargs):
        calls.append(warm is not None)
        return complete(self, *args, warm=warm, **kwargs)

    data = {"one": Y, "short": Y[:5], "lost": np.full(8, np.inf), "far": 20.0 - 3.0 * Y}
    runs = {name: (shared, (jnp.asarray(y),)) for name, y in data.items()}
    runs["flat"] = (inference(at_zero), (), {"y": jnp.asarray(Y)})
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(facade.OneStepInference, "_complete", counted)
        found = run_many(KEY, runs)
    assert shared._fit is None
    return found, calls, [str(w.message) for w in caught]


def test_every_run_is_one_of_its_own(fitted):
    found, calls, _ = fitted
    assert list(found) == ["one", "short", "far", "flat"]
    # What is of the shape of the first is a refit of it, all others start afresh.
    assert calls == [False, False, True, False]
    for name, y, columns in (
        ("one", Y, 2),
        ("far", 20.0 - 3.0 * Y, 2),
        ("short", Y[:5], 2),
        ("flat", Y, 1),
    ):
        log_z, se = evidence(found[name])
        assert abs(log_z - log_evidence(y, columns)) <= 4.0 * se < 0.1
        np.testing.assert_allclose(
            group_dataset(found[name].inference_data, "observed_data")["y"], y, rtol=1e-6
        )


def test_what_failed_is_named(fitted):
    _, _, said = fitted
    (text,) = [text for text in said if "failed" in text]
    assert "'lost'" in text and "inf" in text


def test_they_can_be_compared(fitted):
    found, _, _ = fitted
    table = compare_evidence({name: found[name] for name in ("one", "flat")}).table
    expected = log_evidence(Y, 2) - log_evidence(Y, 1)
    difference = table.loc["one", "log_evidence"] - table.loc["flat", "log_evidence"]
    assert abs(difference - expected) < 0.1


@pytest.mark.slow
def test_what_was_handed_over_may_have_run():
    """A copy is refitted: data and result of the original stay."""
    original = inference()
    original.run(KEY, jnp.asarray(Y))
    before = original.inference_data
    found = run_many(KEY, {0: (original, (jnp.asarray(Y + 1.0),))})
    assert original.inference_data is before
    assert found[0]._fit.target.program is original._fit.target.program
    log_z, se = evidence(found[0])
    assert abs(log_z - log_evidence(Y + 1.0)) <= 4.0 * se < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("finished", [0, 1])
def test_ctrl_c(monkeypatch, finished):
    """What is there is returned; the error goes through where that is nothing."""
    made = []

    def run(self, *args, **kwargs):
        if len(made) == finished:
            raise KeyboardInterrupt
        made.append(self)
        self.__dict__.update(source)

    real = inference()
    real.run(KEY, jnp.asarray(Y))
    source = vars(real)
    monkeypatch.setattr(facade.OneStepInference, "run", run)
    runs = {name: (inference(), (jnp.asarray(Y),)) for name in "ab"}
    if not finished:
        with pytest.raises(KeyboardInterrupt):
            run_many(KEY, runs)
    else:
        assert list(run_many(KEY, runs)) == ["a"]


def test_the_first_error_where_all_fail():
    with pytest.raises(ValueError, match="inf"):
        run_many(KEY, {"lost": (inference(), (jnp.full(8, jnp.inf),))})


@pytest.mark.parametrize(
    ("runs", "cause"),
    [
        ({}, "at least one"),
        ({"a": inference()}, "'a' to be"),
        ({"a": (inference(), Y)}, "'a' to be"),
        ({"a": (located, (Y,))}, "'a' to be"),
        ({"a": (inference(checkpoint="file"), (Y,))}, "checkpoint"),
    ],
)
def test_bad_input(runs, cause):
    with pytest.raises(ValueError, match=cause):
        run_many(KEY, runs)
