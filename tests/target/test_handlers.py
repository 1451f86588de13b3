"""Handlers and statements of NumPyro, each with the integral of its density and its evidence note.

Every model has one or two unconstrained dimensions, so the integral of exp(log_density) over a grid
is the target's evidence; the truth is computed apart from NumPyro.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats
from numpyro import handlers
from numpyro.infer.reparam import CircularReparam, LocScaleReparam, TransformReparam

from numpyro_onestep.target import build_target

Y = np.array([0.3, -0.4, 1.1], np.float32)


def model(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def log_normal_model(y):
    s = numpyro.sample("s", dist.LogNormal(0.0, 0.5))
    numpyro.sample("y", dist.Normal(0.0, s).expand([3]).to_event(1), obs=y)


def two_latents(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    mu = numpyro.sample("mu", dist.Normal(a, 2.0))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=y)


def factor(y):
    model(y)
    numpyro.factor("penalty", jnp.array([-1.0, -2.0]))


def scaled_prior(y):
    with handlers.scale(scale=0.5):
        mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=y)


def unit_scale(y):
    with handlers.scale(scale=1.0):
        model(y)


def scaled_likelihood(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("n", 3), handlers.scale(scale=2.0):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def masked_likelihood(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("n", 3), handlers.mask(mask=jnp.array([True, False, True])):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def nan_masked(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Normal(mu, 1.0).mask(~jnp.isnan(y)), obs=y)


def mixture(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("n", 3):
        z = numpyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(mu + 2.0 * z, 1.0), obs=y)


def imputed(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    missing = numpyro.sample("missing", dist.Normal(mu, 1.0))
    numpyro.deterministic("filled", jnp.append(y, missing))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=y)


def random_key(y):
    model(y)
    numpyro.deterministic("noise", jax.random.normal(numpyro.prng_key()))


def held_parameter(y):
    width = numpyro.param("width", 1.0, constraint=dist.constraints.positive)
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    numpyro.sample("y", dist.Normal(mu, width).expand([3]).to_event(1), obs=y)


def unused_parameter(y):
    numpyro.param("unused", jnp.ones(2))
    model(y)


def dynamic_support(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Uniform(a, a + 2.0))
    numpyro.sample("y", dist.Normal(b, 1.0).expand([3]).to_event(1), obs=y)


def normal_pdf(x, mu, sd):
    return np.exp(-0.5 * ((x - mu) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))


def integral(prior, likelihood, low=-np.inf):
    return scipy.integrate.quad(lambda m: prior(m) * likelihood(m), low, np.inf)[0]


def prior(mu):
    return normal_pdf(mu, 0.0, 2.0)


def likelihood(mu, y=Y):
    return np.prod(normal_pdf(y, mu, 1.0))


def width_prior(width):
    return scipy.stats.lognorm(0.5).pdf(width)


def any_width_likelihood(width):
    covariance = width**2 * np.eye(3) + 4.0
    return scipy.stats.multivariate_normal(np.zeros(3), covariance).pdf(Y)


def wide_prior(mu):
    return normal_pdf(mu, 0.0, np.sqrt(5.0))


def uniform_likelihood():
    def inner(a):
        return integral(lambda b: 0.5 if a < b < a + 2 else 0.0, likelihood)

    grid = np.linspace(-6, 6, 241)

    def average(a):
        return scipy.integrate.quad(likelihood, a, a + 2)[0] / 2

    return np.trapezoid([normal_pdf(a, 0.0, 1.0) * average(a) for a in grid], grid)


PLAIN = integral(prior, likelihood)
LOG_NORMAL = integral(
    lambda s: scipy.stats.lognorm(0.5).pdf(s), lambda s: np.prod(normal_pdf(Y, 0.0, s)), low=0.0
)
PAIR = Y[[0, 2]]
NAN = np.array([0.3, np.nan, 1.1], np.float32)

# name: (model, arguments, truth of the integral, evidence, words of the note)
CASES = {
    "plain": (model, (Y,), PLAIN, "normalised", ""),
    "condition": (handlers.condition(model, {"y": Y}), (), PLAIN, "normalised", ""),
    "scope": (handlers.scope(model, prefix="s"), (Y,), PLAIN, "normalised", ""),
    "block": (
        handlers.block(handlers.substitute(two_latents, {"a": 0.0}), hide=["a"]),
        (Y,),
        PLAIN,
        "normalised",
        "",
    ),
    "condition_latent": (
        handlers.condition(two_latents, {"a": 0.0}),
        (Y,),
        PLAIN * normal_pdf(0.0, 0.0, 1.0),
        "normalised",
        "",
    ),
    "two_latents": (two_latents, (Y,), integral(wide_prior, likelihood), "normalised", ""),
    "loc_scale_reparam": (
        handlers.reparam(two_latents, {"mu": LocScaleReparam(0.0)}),
        (Y,),
        integral(wide_prior, likelihood),
        "normalised",
        "",
    ),
    "transform_reparam": (
        handlers.reparam(log_normal_model, {"s": TransformReparam()}),
        (Y,),
        LOG_NORMAL,
        "normalised",
        "",
    ),
    "seed": (handlers.seed(model, 0), (Y,), PLAIN, "normalised", ""),
    "infer_config": (
        handlers.infer_config(model, lambda site: {"note": site["name"]}),
        (Y,),
        PLAIN,
        "normalised",
        "",
    ),
    # The site keeps its prior; what follows from it sees the intervention.
    "do": (handlers.do(two_latents, {"a": 0.0}), (Y,), PLAIN, "normalised", ""),
    "lift": (
        handlers.lift(held_parameter, {"width": dist.LogNormal(0.0, 0.5)}),
        (Y,),
        integral(width_prior, any_width_likelihood, low=0.0),
        "normalised",
        "",
    ),
    "masked_likelihood": (
        masked_likelihood,
        (Y,),
        integral(prior, lambda mu: likelihood(mu, PAIR)),
        "normalised",
        "",
    ),
    "nan_masked": (
        nan_masked,
        (NAN,),
        integral(prior, lambda mu: likelihood(mu, PAIR)),
        "normalised",
        "",
    ),
    "enumerated": (
        mixture,
        (Y,),
        integral(
            prior,
            lambda mu: np.prod(0.7 * normal_pdf(Y, mu, 1.0) + 0.3 * normal_pdf(Y, mu + 2.0, 1.0)),
        ),
        "normalised",
        "",
    ),
    "imputed": (imputed, (Y,), PLAIN, "normalised", ""),
    "dynamic_support": (dynamic_support, (Y,), uniform_likelihood(), "normalised", ""),
    "random_key": (random_key, (Y,), PLAIN, "normalised", ""),
    "unit_scale": (unit_scale, (Y,), PLAIN, "normalised", ""),
    "unused_parameter": (unused_parameter, (Y,), PLAIN, "normalised", ""),
    "held_parameter": (held_parameter, (Y,), PLAIN, "noted", "parameters 'width'"),
    "factor": (factor, (Y,), PLAIN * np.exp(-3.0), "noted", "factor statements 'penalty'"),
    "scaled_prior": (
        scaled_prior,
        (Y,),
        integral(lambda mu: prior(mu) ** 0.5, likelihood),
        "noted",
        "prior of 'mu' is scaled",
    ),
    "scaled_likelihood": (
        scaled_likelihood,
        (Y,),
        integral(prior, lambda mu: likelihood(mu) ** 2),
        "noted",
        "likelihood of 'y' is scaled",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_integral_is_the_evidence(name):
    case, args, truth, evidence, words = CASES[name]
    target = build_target(jax.random.key(0), case, args)
    count, limit = {1: (601, 15.0), 2: (161, 12.0)}[target.dim]
    axis, step = np.linspace(-limit, limit, count, retstep=True)
    mesh = np.meshgrid(*[axis] * target.dim, indexing="ij")
    points = jnp.asarray(np.stack([m.ravel() for m in mesh], axis=1), jnp.float32)
    values = jax.jit(lambda t, p: jax.vmap(t.log_density)(p))(target, points)
    found = np.exp(np.asarray(values, float)).sum() * step**target.dim
    assert found == pytest.approx(truth, rel=2e-3)
    assert target.evidence == evidence
    assert words in target.evidence_note
    assert bool(target.evidence_note) == (evidence != "normalised")


def improper(wrap=lambda fn: fn):
    def improper_model(y):
        mu = numpyro.sample("mu", wrap(dist.ImproperUniform(dist.constraints.real, (), ())))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y.sum())

    return improper_model


def masked_prior(y, mask):
    mu = numpyro.sample("mu", dist.Normal(jnp.zeros(3), 1.0).mask(mask).to_event(1))
    numpyro.sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)


def imputed_in_place(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    missing = numpyro.sample("missing", dist.Normal(mu, 1.0).mask(False))
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y.at[1].set(missing))


def obs_mask(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=jnp.array([True, False, True]))


def circular(y):
    angle = numpyro.sample("angle", dist.VonMises(0.0, 2.0))
    numpyro.sample("y", dist.Normal(jnp.cos(angle), 1.0).expand([3]).to_event(1), obs=y)


REFUSED = {
    "improper": (improper(), "'mu' is improper"),
    "improper_expanded": (improper(lambda fn: fn.expand([2]).to_event(1)), "'mu' is improper"),
    "improper_unmasked": (improper(lambda fn: fn.mask(True)), "'mu' is improper"),
    "masked": (lambda y: masked_prior(y, mask=False), "'mu' is masked"),
    "partly_masked": (
        lambda y: masked_prior(y, jnp.array([True, False, True])),
        "'mu' is masked",
    ),
    "handler_masked": (handlers.mask(two_latents, mask=False), "'a', 'mu' is masked"),
    "imputed_in_place": (imputed_in_place, "'missing' is masked"),
    "obs_mask": (obs_mask, "'y_unobserved' is masked"),
    "circular_reparam": (handlers.reparam(circular, {"angle": CircularReparam()}), "is improper"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_evidence_is_refused(name):
    case, words = REFUSED[name]
    target = build_target(jax.random.key(0), case, (jnp.asarray(Y),))
    assert target.evidence == "refused"
    assert words in target.evidence_note


def test_values_filled_in_by_the_model_are_not_data():
    target = build_target(jax.random.key(0), imputed_in_place, (jnp.asarray(Y),))
    np.testing.assert_array_equal(target.observed_data["y"], [Y[0], np.nan, Y[2]])
    assert "value of 'y' is computed" in target.evidence_note


def test_a_prior_masked_nowhere_is_normalised():
    case = lambda y: masked_prior(y, jnp.array([True, True, True]))  # noqa: E731
    assert build_target(jax.random.key(0), case, (Y,)).evidence == "normalised"
