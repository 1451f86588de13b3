"""Power-scaling against its analytic posterior, on a conjugate model and with ArviZ's own tools."""

import warnings

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import mixture, run

from numpyro_onestep.inference_data import (
    SAMPLE_DIMS,
    AxisNames,
    group_dataset,
    make_dataset,
    wrap_groups,
)
from numpyro_onestep.target import build_target, log_prior_by_site

PRIOR_MEAN, PRIOR_SD, NOISE = 1.0, 0.5, 1.0
Y = np.array([-1.3, 0.4, -0.8, -0.1, -1.9, -0.6])


def located(y):
    """A mean with a normal prior that the data contradict, and a site that they do not touch."""
    numpyro.sample("free", dist.Gamma(3.0, 2.0).expand([2]).to_event(1))
    mu = numpyro.sample("mu", dist.Normal(PRIOR_MEAN, PRIOR_SD))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(mu, NOISE), obs=y)


@pytest.fixture(scope="module")
def fitted():
    return run(located, Y, options={"num_samples": 1000})


def posterior(prior_power=1.0, likelihood_power=1.0):
    """Mean and sd of mu: powers of normal densities are normal densities."""
    prior = prior_power / PRIOR_SD**2
    likelihood = likelihood_power * len(Y) / NOISE**2
    mean = (prior * PRIOR_MEAN + likelihood * Y.mean()) / (prior + likelihood)
    return mean, (prior + likelihood) ** -0.5


@pytest.mark.parametrize("powers", [(1.0, 1.0), (0.5, 1.0), (1.5, 1.0), (1.0, 0.7), (1.3, 1.3)])
def test_powers_of_prior_and_likelihood(fitted, powers):
    row = fitted.weighted_summary(["mu"], prior_power=powers[0], likelihood_power=powers[1])
    # Five standard errors: ten numbers, once in 100,000 runs.
    mean, mean_se, sd, sd_se = row.iloc[0, :4]
    truth = posterior(*powers)
    assert abs(mean - truth[0]) < 5.0 * mean_se and mean_se < 0.02
    assert abs(sd - truth[1]) < 5.0 * sd_se and sd_se < 0.02


def test_a_power_of_the_prior_of_a_free_site(fitted):
    """Gamma(3, 2) to the power a is Gamma(3 a - a + 1, 2 a): its mean is known."""
    table = fitted.weighted_summary(["free"], prior_power=0.8)
    error = np.abs(table["mean"] - (2.0 * 0.8 + 1.0) / (2.0 * 0.8))
    assert np.all(error < 5.0 * table.iloc[:, 1])


def test_powers_too_far_away_warn(fitted):
    with pytest.warns(UserWarning, match="lead too far"):
        fitted.weighted_summary(["mu"], prior_power=100.0)
    with pytest.raises(ValueError, match="expected prior_power >= 0; got -1.0"):
        fitted.weighted_summary(["mu"], prior_power=-1.0)


def test_group_log_prior(fitted):
    result = fitted.compute_log_prior()
    group, draws = group_dataset(result, "log_prior"), group_dataset(result, "posterior")
    assert set(group.data_vars) == {"free", "mu"}
    assert group["free"].dims == group["mu"].dims == ("chain", "draw")
    expected = -0.5 * ((draws["mu"] - PRIOR_MEAN) / PRIOR_SD) ** 2
    expected = expected - np.log(PRIOR_SD * np.sqrt(2.0 * np.pi))
    np.testing.assert_allclose(group["mu"], expected, atol=1e-4)


def sensitivity(result, component):
    """ArviZ's diagnostic, on either line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(az, "psens"):
            return float(az.psens(result, component=component)["mu"])
        return float(az.psense(result, group=component)["mu"])


def exact_draws(seed):
    """A result of as many draws of mu from its posterior, with log-densities up to constants."""
    mu = np.random.default_rng(seed).normal(*posterior(), (4, 1000))
    log_prior = -0.5 * ((mu - PRIOR_MEAN) / PRIOR_SD) ** 2
    log_likelihood = -0.5 * ((Y - mu[..., None]) / NOISE) ** 2
    groups = {
        # ArviZ 0.23 returns no dataset for a group of one variable.
        "posterior": {"mu": mu, "other": -mu},
        "log_prior": {"mu": log_prior},
        "log_likelihood": {"y": log_likelihood},
    }
    names = AxisNames()
    return wrap_groups({k: make_dataset(v, SAMPLE_DIMS, names) for k, v in groups.items()}, {})


@pytest.mark.parametrize("component", ["prior", "likelihood"])
def test_the_diagnostic_of_arviz(fitted, component):
    """Ours among those of exact draws, within five sds; prior and data are in conflict: > 0.05."""
    ours = sensitivity(fitted.compute_log_prior(), component)
    exact = [sensitivity(exact_draws(seed), component) for seed in range(20)]
    assert min(exact) > 0.05
    assert abs(ours - np.mean(exact)) < 5.0 * np.std(exact, ddof=1)
    assert np.std(exact, ddof=1) < 0.2 * np.mean(exact)


def test_discrete_sites_are_refused():
    target = build_target(jax.random.key(0), mixture, (np.array([-2.1, 1.9]),))
    with pytest.raises(ValueError, match="expected a model without discrete latent sites"):
        log_prior_by_site(target, np.zeros((1, target.dim)))
