"""Prior and predictive groups, weighted summaries and expectations, on one fitted hierarchy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from quick import EFFECT, ERROR, mixture, run, schools

from numpyro_onestep import OneStepInference
from numpyro_onestep.inference_data import group_dataset, group_names
from numpyro_onestep.plots import plot_training
from numpyro_onestep.target import build_target, predictive_draws, prior_draws

NAMES = ["Choate", "Deerfield", "Phillips"]


@pytest.fixture(scope="module")
def fitted():
    return run(schools, ERROR, effect=EFFECT, options={"coords": {"school": NAMES}})


def moments_agree(draws, mean, sd, num):
    """Mean and sd within 4.5 standard errors of `num` independent draws of a near-normal."""
    assert np.all(np.abs(draws.mean(0) - mean) < 4.5 * sd / np.sqrt(num))
    assert np.all(np.abs(draws.std(0) / sd - 1.0) < 4.5 / np.sqrt(num))


def test_prior_after_a_run(fitted):
    result = fitted.sample_prior(jax.random.key(1), num_samples=1500)
    assert result is fitted.inference_data
    prior, predictive = (group_dataset(result, g) for g in ("prior", "prior_predictive"))
    assert set(prior.data_vars) == {"mu", "tau", "eta", "theta"}
    assert set(predictive.data_vars) == {"effect"}
    assert prior["theta"].dims == predictive["effect"].dims == ("chain", "draw", "school")
    assert prior["theta"].shape == (1, 1500, 3) and list(prior["school"]) == NAMES
    moments_agree(prior["mu"].to_numpy()[0], 0.0, 5.0, 1500)
    # Observed values are left aside; mu, tau eta and the error add up.
    sd = np.sqrt(25.0 + 25.0 + ERROR**2)
    draws = predictive["effect"].to_numpy()[0]
    assert np.all(np.abs(draws.mean(0)) < 4.5 * sd / np.sqrt(1500))
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.15)
    assert len(np.unique(draws[:, 0])) == 1500
    # Once more: in place of the old group.
    fitted.sample_prior(jax.random.key(2), num_samples=10)
    assert group_dataset(fitted.inference_data, "prior").sizes["draw"] == 10


def test_prior_before_a_run():
    inference = OneStepInference(schools)
    with pytest.raises(RuntimeError, match="call `run` first"):
        inference.sample_prior(jax.random.key(0))
    result = inference.sample_prior(jax.random.key(0), ERROR, effect=EFFECT, num_samples=50)
    assert set(group_names(result)) == {"prior", "prior_predictive"}
    assert group_dataset(result, "prior")["mu"].shape == (1, 50)
    with pytest.raises(ValueError, match="expected num_samples"):
        inference.sample_prior(jax.random.key(0), ERROR, effect=EFFECT, num_samples=0)


def test_posterior_predictive(fitted):
    result = fitted.sample_posterior_predictive(jax.random.key(3))
    drawn = group_dataset(result, "posterior_predictive")["effect"]
    theta = group_dataset(result, "posterior")["theta"]
    assert drawn.dims == theta.dims and drawn.shape == theta.shape
    noise = (drawn - theta).to_numpy().reshape(-1, 3)
    moments_agree(noise / ERROR, 0.0, 1.0, 2000)
    # Every draw has its own noise, and every school.
    assert len(np.unique(noise)) > 0.99 * noise.size
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.1


def test_predictions_of_other_schools(fitted):
    """`theta` follows from the latent sites of the same schools, the error is new."""
    result = fitted.predict(jax.random.key(4), 0.01 * ERROR)
    drawn = group_dataset(result, "predictions")["effect"]
    theta = group_dataset(result, "posterior")["theta"].to_numpy()
    assert drawn.dims == ("chain", "draw", "school") and list(drawn["school"]) == NAMES
    assert np.abs(drawn.to_numpy() - theta).max() < 0.01 * ERROR.max() * 6.0


def regression(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    mean = numpyro.deterministic("mean", slope * x)
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(mean, 0.1), obs=y)


def test_predictions_of_other_length():
    """Deterministic sites of the fit have its length: they are computed anew."""
    x = np.arange(5.0)
    target = build_target(jax.random.key(0), regression, (x,), {"y": x})
    samples = {"slope": np.linspace(0.9, 1.1, 50), "mean": np.zeros((50, 5))}
    drawn = predictive_draws(target, jax.random.key(1), samples, ((jnp.arange(7.0),), {}))
    assert drawn["y"].shape == (50, 7)
    assert abs(np.corrcoef(drawn["y"][:, 6], samples["slope"])[0, 1]) > 0.9
    # Observed values that are passed all the same do not come back as predictions.
    again = predictive_draws(target, jax.random.key(1), samples)
    assert again["y"].shape == (50, 5) and again["y"].std() > 0.05


def test_discrete_sites_are_drawn_given_the_data():
    y = np.array([-2.0, 2.0, 2.1])
    target = build_target(jax.random.key(0), mixture, (y,))
    samples = {"centre": np.tile([-2.0, 2.0], (400, 1)), "share": np.full(400, 0.5)}
    drawn = predictive_draws(target, jax.random.key(1), samples)["y"]
    # Each point is predicted from its own cluster, not from either.
    assert np.all(drawn[:, 0] < 1.0) and np.all(drawn[:, 1:] > -1.0)
    _, prior = prior_draws(target, jax.random.key(2), 400)
    assert 0.2 < np.mean(prior["y"][:, 0] < 0.0) < 0.8


def test_weighted_summary(fitted):
    table = fitted.weighted_summary(["mu", "theta"], prob=0.8)
    assert list(table.index) == ["mu", *(f"theta[{name}]" for name in NAMES)]
    assert [c for c in table.columns if c != "mcse"] == ["mean", "sd", "median", "10.0%", "90.0%"]
    samples, log_weight = fitted.get_weighted_samples()
    weight = np.exp(log_weight - log_weight.max())
    mean = (weight * np.asarray(samples["mu"], float)).sum() / weight.sum()
    assert table["mean"]["mu"] == pytest.approx(mean)
    mcse = table.loc["mu"].to_numpy()[1]
    assert 0.5 < mcse / (table["sd"]["mu"] / np.sqrt(len(weight))) < 3.0
    chains = np.asarray(fitted.get_samples()["mu"], float)
    assert abs(chains.mean() - mean) < 0.2 * chains.std()
    assert table["10.0%"]["mu"] < table["median"]["mu"] < table["90.0%"]["mu"]
    assert len(fitted.weighted_summary()) == 8
    with pytest.raises(ValueError, match="expected variables out of"):
        fitted.weighted_summary(["nu"])


def test_expectation(fitted):
    found = fitted.expectation(lambda sites: sites["theta"] > sites["mu"][:, None])
    assert found.value.shape == found.mcse.shape == (3,)
    assert np.all((found.value > 0.1) & (found.value < 0.9) & (found.mcse < 0.05))
    mean = fitted.expectation(lambda sites: sites["tau"])
    assert mean.value == pytest.approx(fitted.weighted_summary(["tau"])["mean"]["tau"])
    with pytest.raises(ValueError, match="expected values of shape"):
        fitted.expectation(lambda sites: sites["tau"][:10])


def test_the_picture_of_training(fitted, tmp_path):
    figure = plot_training(fitted.inference_data)
    shares, evidences, gradients = figure.axes
    record = group_dataset(fitted.inference_data, "training")
    lines = {line.get_label(): line for line in shares.get_lines()}
    np.testing.assert_allclose(lines["rounds"].get_ydata(), record["ess_fraction"])
    stats = group_dataset(fitted.inference_data, "sample_stats")
    lines = {line.get_label(): line for line in evidences.get_lines()}
    np.testing.assert_allclose(lines["final"].get_ydata(), float(stats["log_evidence"]))
    assert f"{float(stats['log_evidence']):.3f}" in evidences.get_title()
    lines = {line.get_label(): line for line in gradients.get_lines()}
    assert lines["steps"].get_xdata().size == record.sizes["training_step"]
    assert gradients.get_yscale() == "log"
    figure.savefig(tmp_path / "training.png")
    figure.draw_without_rendering()
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    assert not any(a.overlaps(b) for a, b in zip(titles, titles[1:], strict=False))
    # What cannot be shown is said.
    broken = record.copy(deep=True)
    broken["round_log_evidence"][0] = float(stats["log_evidence"]) - 1e6
    result = fitted.inference_data
    before = group_dataset(result, "training")
    from numpyro_onestep.inference_data import add_groups

    add_groups(result, {"training": broken})
    assert "1 far below" in plot_training(result).axes[1].get_title()
    add_groups(result, {"training": broken.drop_vars("gradient_norm")})
    with pytest.raises(ValueError, match=r"expected training records \['gradient_norm'\]"):
        plot_training(result)
    add_groups(result, {"training": before})
