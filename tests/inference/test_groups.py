"""Groups of the result beside what ArviZ makes of NumPyro's own MCMC, and what reads them."""

import warnings

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, Predictive
from quick import EFFECT, ERROR, run, schools

from numpyro_onestep import plot_diagnostics
from numpyro_onestep.inference_data import group_dataset, group_names

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

NAMES = ["Choate", "Deerfield", "Phillips"]
KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def fitted():
    inference = run(schools, ERROR, effect=EFFECT, options={"coords": {"school": NAMES}})
    inference.sample_prior(KEY, num_samples=200)
    inference.sample_posterior_predictive(KEY)
    inference.predict(KEY, 0.5 * ERROR)
    return inference


def test_moved_points_are_those_of_the_upper_bound(fitted):
    moved = group_dataset(fitted.inference_data, "importance")["moved_log_weight"]
    stats = group_dataset(fitted.inference_data, "sample_stats")
    assert moved.dims == ("moved_point",) and moved.size >= 500
    np.testing.assert_allclose(np.nanmean(moved), stats["eubo"], rtol=1e-6)
    found = plot_diagnostics(fitted.inference_data).axes[1].get_title()
    assert f" of {moved.size} moved points beyond all draws" in found


def test_groups_variables_and_dims_are_those_of_from_numpyro(fitted):
    """Everything that ArviZ makes of MCMC and of draws of `Predictive` is here, under its names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc = MCMC(NUTS(schools), num_warmup=20, num_samples=10, progress_bar=False)
        mcmc.run(KEY, ERROR, effect=EFFECT)
        prior = Predictive(schools, num_samples=5)(KEY, ERROR)
        predictive = Predictive(schools, mcmc.get_samples())
        theirs = az.from_numpyro(
            mcmc,
            prior=prior,
            posterior_predictive=predictive(KEY, ERROR),
            predictions={"effect": predictive(KEY, 0.5 * ERROR)["effect"]},
            constant_data={"error": ERROR},
            predictions_constant_data={"error": 0.5 * ERROR},
            log_likelihood=True,
            coords={"school": NAMES},
            dims={"effect": ["school"], "eta": ["school"], "theta": ["school"]},
        )
    ours = fitted.inference_data
    wanted = {"prior", "prior_predictive", "posterior_predictive", "predictions"}
    wanted |= {"log_likelihood", "constant_data", "predictions_constant_data", "observed_data"}
    assert wanted <= set(group_names(theirs)) <= set(group_names(ours))
    for group in group_names(theirs):
        if group == "sample_stats":
            continue  # those of NUTS
        one, other = group_dataset(theirs, group), group_dataset(ours, group)
        shared = set(one.data_vars) & set(other.data_vars)
        # ArviZ also counts the deterministic sites of a `Predictive` among the predictive ones.
        assert shared == set(other.data_vars), group
        for name in shared:
            assert one[name].dims == other[name].dims or group == "constant_data", (group, name)
        if "school" in one.coords:
            assert list(one["school"].to_numpy()) == list(other["school"].to_numpy())


def test_arguments_of_predictions(fitted):
    given = group_dataset(fitted.inference_data, "predictions_constant_data")
    np.testing.assert_allclose(given["error"], 0.5 * ERROR)
    # What held the observed values is no constant, wherever it is passed.
    fitted.predict(KEY, ERROR, effect=EFFECT + 1.0)
    assert set(group_dataset(fitted.inference_data, "predictions_constant_data")) == {"error"}


def test_an_argument_with_the_name_of_a_site_and_other_axes():
    """It is data of the model, not the site: rows and columns swapped, it has no plate's labels."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("column", 2, dim=-2), numpyro.plate("row", 3, dim=-1):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y.T)

    y = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    inference = run(model, y)
    result = inference.inference_data
    observed = group_dataset(result, "observed_data")["y"]
    given = group_dataset(result, "constant_data")["y"]
    assert observed.dims == ("column", "row") and given.dims == ("y_dim_0", "y_dim_1")
    np.testing.assert_array_equal(given, y)
    other = inference.predict(KEY, y + 1.0)
    assert group_dataset(other, "predictions")["y"].dims == ("chain", "draw", "column", "row")
    np.testing.assert_array_equal(group_dataset(other, "predictions_constant_data")["y"], y + 1.0)
