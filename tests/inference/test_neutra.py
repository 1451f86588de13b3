"""The trained map as a transport: NUTS in its coordinates has the model's own posterior."""

import dataclasses

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS
from quick import mixture, run

from numpyro_onestep.target import centredness_of

# Two trainings and a run of NUTS in their maps.
pytestmark = pytest.mark.slow


def bent(effect):
    """A bend, a positive site and a plate: the sites of a chain and of the sampler must agree."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    with numpyro.plate("points", len(effect)):
        b = numpyro.sample("b", dist.Normal(0.3 * a**2, scale))
        numpyro.sample("effect", dist.Normal(b, 1.0), obs=effect)


DATA = np.array([0.2, 1.6, -0.7])


@pytest.fixture(scope="module")
def fitted():
    return run(bent, DATA)


def nuts(model, *args, num_samples=500):
    mcmc = MCMC(
        NUTS(model),
        num_warmup=200,
        num_samples=num_samples,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(2), *args, extra_fields=("diverging", "num_steps"))
    return mcmc


def agree(chains, inference, sites):
    """Means and squares of the sites within five standard errors."""
    theirs, ours = chains.get_samples(group_by_chain=True), inference.get_samples(True)
    for name in sites:
        centre = np.asarray(ours[name]).mean((0, 1))
        for power in (1, 2):
            a, b = ((np.asarray(s[name], float) - centre) ** power for s in (theirs, ours))
            se = np.hypot(*(x.std((0, 1)) / np.sqrt(effective_sample_size(x)) for x in (a, b)))
            assert np.all(np.abs(a.mean((0, 1)) - b.mean((0, 1))) < 5.0 * se), (name, power)


def test_nuts_in_the_map(fitted):
    neutra = fitted.neutra()
    assert neutra.transform.steps is not None
    # The sampler works with `b` in coordinates between centred and non-centred.
    assert set(centredness_of(neutra.transform.coordinates)) == {"b"}
    chains = nuts(neutra.reparam(bent), DATA)
    agree(chains, fitted, ("scale", "a", "b"))
    # Close to a standard normal: short trajectories, hardly one of which diverges.
    fields = chains.get_extra_fields()
    assert fields["diverging"].mean() < 0.01
    assert np.median(fields["num_steps"]) <= 7
    # The latent site of NeuTra and the model's own sites say the same.
    samples = chains.get_samples()
    again = neutra.transform_sample(samples["auto_shared_latent"])
    for name in ("scale", "a", "b"):
        np.testing.assert_allclose(again[name], samples[name], rtol=1e-4, atol=1e-4)


def test_the_volume_is_that_of_the_map(fitted):
    transform = fitted.neutra().transform
    z = jax.random.normal(jax.random.key(3), (4, fitted.last_target.dim))
    jacobian = jax.vmap(jax.jacfwd(transform))(z)
    expected = np.linalg.slogdet(np.asarray(jacobian, float))[1]
    x = transform(z)
    np.testing.assert_allclose(transform.log_abs_det_jacobian(z, x), expected, atol=1e-3)


def test_a_map_that_folds_leaves_the_gaussian(fitted):
    neutra = folded(fitted).neutra()
    assert neutra.transform.steps is None
    z = jax.random.normal(jax.random.key(3), (4, fitted.last_target.dim))
    jacobian = jax.vmap(jax.jacfwd(neutra.transform))(z)
    expected = np.linalg.slogdet(np.asarray(jacobian, float))[1]
    volume = neutra.transform.log_abs_det_jacobian(z, neutra.transform(z))
    np.testing.assert_allclose(volume, expected, atol=1e-3)


def folded(inference):
    """The same inference, one of whose draws lies on a fold."""
    copy = object.__new__(type(inference))
    copy.__dict__.update(vars(inference))
    sign = inference._run.draws.sign.copy()
    sign[0] = -1.0
    draws = dataclasses.replace(inference._run.draws, sign=sign)
    copy._run = dataclasses.replace(inference._run, draws=draws)
    return copy


def test_modes_are_refused(fitted):
    copy = object.__new__(type(fitted))
    copy.__dict__.update(vars(fitted))
    trained = fitted._fit.trained
    two = dataclasses.replace(
        trained, components=2 * trained.components, log_share=np.log([0.5, 0.5])
    )
    copy._run = dataclasses.replace(fitted._run, fit=dataclasses.replace(fitted._fit, trained=two))
    with pytest.raises(ValueError, match="expected a sampler of one mode.*got 2 components"):
        copy.neutra()


@pytest.mark.slow
def test_labels_stay_summed_out():
    y = np.array([-2.1, -1.7, 2.2, 1.9, 2.4])
    fitted = run(mixture, y)
    chains = nuts(fitted.neutra().reparam(mixture), y)
    agree(chains, fitted, ("centre", "share"))
