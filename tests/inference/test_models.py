"""Models as users of NumPyro write them, from the statement to the result."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import Predictive, init_to_value
from numpyro.infer.reparam import LocScaleReparam
from quick import EFFECT, ERROR, X, Y, line, mixture, run, stat
from scipy import stats

from numpyro_onestep.inference_data import group_dataset


def centred(error):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(5.0))
    with numpyro.plate("school", len(error)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, error))


def log_normal_of(variance, y):
    return stats.norm(0.0, np.sqrt(variance)).logpdf(y).sum(-1)


def test_condition_substitute_block():
    """With mu and tau fixed, schools are independent: y ~ N(mu, tau^2 + error^2)."""
    model = handlers.condition(centred, {"effect": EFFECT})
    model = handlers.block(handlers.substitute(model, {"mu": 0.0, "tau": 3.0}), hide=["mu", "tau"])
    inference = run(model, ERROR)
    truth = log_normal_of(9.0 + ERROR**2, EFFECT)
    assert abs(stat(inference, "log_evidence") - truth) < 0.01
    assert set(inference.get_samples()) == {"theta"}
    shrunk = EFFECT * 9.0 / (9.0 + ERROR**2)
    sd = np.sqrt(9.0 * ERROR**2 / (9.0 + ERROR**2))
    mean = np.asarray(inference.get_samples()["theta"]).mean(0)
    # 2000 draws of which most are new: six standard errors of independent ones.
    assert np.all(np.abs(mean - shrunk) < 6.0 * sd / np.sqrt(2000))


@pytest.mark.slow
def test_reparam_scope():
    """Other coordinates and other names, the same evidence: against quadrature over mu and tau."""
    model = handlers.condition(centred, {"effect": EFFECT})
    model = handlers.reparam(model, config={"theta": LocScaleReparam(0.0)})
    inference = run(handlers.scope(model, "a"), ERROR)
    assert set(inference.get_samples()) == {"a/mu", "a/tau", "a/theta_decentered", "a/theta"}
    tau = (np.arange(2000) + 0.5) / 2000 * 40.0
    covariance = np.diag(ERROR**2) + tau[:, None, None] ** 2 * np.eye(3) + 25.0
    log_p = -0.5 * (
        np.einsum("i,tij,j->t", EFFECT, np.linalg.inv(covariance), EFFECT)
        + np.linalg.slogdet(covariance)[1]
        + 3.0 * np.log(2.0 * np.pi)
    )
    truth = np.log(np.sum(np.exp(log_p + stats.halfnorm(0.0, 5.0).logpdf(tau))) * 0.02)
    error = abs(stat(inference, "log_evidence") - truth)
    assert error <= 4.0 * stat(inference, "log_evidence_se")
    assert error < 0.05
    posterior = group_dataset(inference.inference_data, "posterior")
    # Neither a DataTree nor a netCDF file can hold the slash.
    assert posterior["a.theta"].sizes["a.school"] == 3


@pytest.mark.slow
def test_enumerated_labels():
    y = np.array([-2.1, -1.7, 2.2, 1.9, 2.4])
    inference = run(mixture, y)
    assert set(inference.get_samples()) == {"centre", "share"}
    predictive = Predictive(mixture, inference.get_samples(), infer_discrete=True)
    label = np.asarray(predictive(jax.random.key(1), y)["label"])
    assert label.shape == (2000, 5)
    assert np.all(np.abs(label.mean(0) - (y > 0)) < 0.02)
    # The labels are as good as known: the evidence is that of this one assignment.
    truth = np.log(stats.betabinom(5, 2.0, 2.0).pmf(3) / 10.0)
    for centre, group in ((-2.0, y[y < 0]), (2.0, y[y > 0])):
        covariance = 0.25 * np.eye(len(group)) + 0.25
        truth += stats.multivariate_normal(np.full(len(group), centre), covariance).logpdf(group)
    assert abs(stat(inference, "log_evidence") - truth) < 0.02


def two_modes():
    """Modes a hundred standard deviations apart."""
    modes = dist.Normal(jnp.array([-50.0, 50.0]), 1.0)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.array([0.5, 0.5])), modes))


@pytest.mark.parametrize("start", [pytest.param(-48.0, marks=pytest.mark.slow), 48.0])
def test_init_strategy(start):
    strategy = init_to_value(values={"x": start})
    draws = np.asarray(run(two_modes, options={"init_strategy": strategy}).get_samples()["x"])
    # Wherever the search starts, it finds the other mode too.
    assert np.all(np.abs(np.abs(draws) - 50.0) < 6.0)
    assert abs(np.mean(draws > 0.0) - 0.5) < 0.05


@pytest.mark.slow
def test_double_precision():
    with jax.enable_x64(True):
        # Copies: JAX remembers the dtype of an array that a program closed over.
        inference = run(line, X.copy(), Y.copy())
        samples = inference.get_samples()
        draws = inference.sample(jax.random.key(1), 500)
    assert {value.dtype for value in samples.values()} == {np.dtype("float64")}
    assert draws.samples["slope"].dtype == np.float64
    # A grid over slope and log noise.
    slope, log_noise = np.meshgrid(np.linspace(-3.0, 4.0, 701), np.linspace(-4.0, 2.0, 601))
    noise = np.exp(log_noise)
    log_p = stats.norm(0.0, 1.0).logpdf(slope) + stats.halfnorm(0.0, 1.0).logpdf(noise) + log_noise
    for x, y in zip(X, Y, strict=True):
        log_p += stats.norm(slope * x, noise).logpdf(y)
    truth = np.log(np.exp(log_p).sum() * 0.01 * 0.01)
    error = abs(stat(inference, "log_evidence") - truth)
    assert error <= 4.0 * stat(inference, "log_evidence_se") <= 0.05


def test_a_site_that_is_undefined_is_named():
    """Nobody sees it in the weights: the density is a number all the same."""

    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
        numpyro.deterministic("root", jnp.sqrt(x))
        numpyro.deterministic("square", x**2)

    verdict = run(model).verdict
    (reason,) = [reason for reason in verdict.reasons if "NaN" in reason]
    assert "'root' in " in reason and "square" not in reason
    assert verdict.label == "reliable"


@pytest.mark.slow
def test_calls_of_the_model_are_capped():
    """Tracing, not running: a loop over draws in Python would call the model thousands of times."""
    calls = []

    def counted(x, y):
        calls.append(None)
        line(x, y)

    inference = run(counted, X, Y)
    numbers = [len(calls)]
    for key in (1, 2):
        inference.sample(jax.random.key(key), 1000)
        inference.sample(jax.random.key(key), 1000, weights=False)
        numbers.append(len(calls))
    # About 40 for a run; a call of `sample` looks at the shapes of the sites.
    assert numbers[0] <= 45
    assert numbers[1] - numbers[0] <= 5
    assert numbers[2] - numbers[1] <= 2
