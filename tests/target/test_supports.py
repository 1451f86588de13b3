"""Every constrained support normalises: exp(log_density) of a prior alone integrates to one.

All priors sit in one model, because its density factorises: with all other sites held at zero, the
integral over one site is that site's own, times a constant that NumPyro's `log_prob` gives.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to, constraints, transforms

from numpyro_onestep.target import build_target


def normal(size):
    return dist.Normal(0.0, 1.0).expand([size]).to_event(1)


# name: (distribution, support it stands for). Sites of up to three unconstrained dimensions.
PRIORS = {
    "real": (dist.Normal(1.0, 2.0), constraints.real),
    "heavy": (dist.StudentT(3.0, 0.0, 1.0), constraints.real),
    "real_vector": (
        dist.MultivariateNormal(jnp.ones(2), jnp.array([[2.0, 0.5], [0.5, 1.0]])),
        None,
    ),
    "positive": (dist.Gamma(2.0, 1.5), constraints.positive),
    "log_normal": (dist.LogNormal(0.0, 1.0), constraints.positive),
    "half_normal": (dist.HalfNormal(2.0), constraints.positive),
    "half_cauchy": (dist.HalfCauchy(1.0), constraints.positive),
    "inverse_gamma": (dist.InverseGamma(3.0, 2.0), constraints.positive),
    "greater_than": (dist.Pareto(1.0, 3.0), None),
    "less_than": (dist.TruncatedNormal(0.0, 1.0, high=0.5), None),
    "interval": (dist.Uniform(-1.0, 3.0), None),
    "truncated": (dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0), None),
    "unit_interval": (dist.Beta(2.0, 3.0), constraints.unit_interval),
    "circular": (dist.VonMises(0.5, 2.0), constraints.circular),
    "simplex": (dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])), constraints.simplex),
    "ordered": (
        dist.TransformedDistribution(normal(3), transforms.OrderedTransform()),
        constraints.ordered_vector,
    ),
    "corr_cholesky": (dist.LKJCholesky(3, 1.5), constraints.corr_cholesky),
    "corr_matrix": (dist.LKJ(2, 2.0), constraints.corr_matrix),
    "lower_cholesky": (dist.WishartCholesky(4.0, scale_matrix=jnp.eye(2)), None),
    "positive_definite": (dist.Wishart(4.0, scale_matrix=jnp.eye(2)), None),
    "zero_sum": (dist.ZeroSumNormal(1.5, (3,)), None),
    "l1_ball": (dist.TransformedDistribution(normal(2), transforms.L1BallTransform()), None),
}
# Points per dimension on x = sinh(t), and the largest t: heavy tails need a wide grid.
# sinh(4.3) = 37 keeps float32 away from 1/x**2 of NumPyro's InverseGamma, infinite beyond 43.
GRIDS = {1: (401, 4.3), 2: (81, 4.0), 3: (31, 3.3)}
CHUNK = 4096


def all_priors():
    for name, (prior, _) in PRIORS.items():
        numpyro.sample(name, prior)


@pytest.fixture(scope="module")
def target():
    return build_target(jax.random.key(0), all_priors)


@pytest.fixture(scope="module")
def log_density(target):
    evaluate = jax.jit(lambda t, points: jax.vmap(t.log_density)(points))

    def in_chunks(points):
        chunks = []
        for start in range(0, len(points), CHUNK):
            part = points[start : start + CHUNK]
            padded = np.pad(part, ((0, CHUNK - len(part)), (0, 0)))
            chunks.append(np.asarray(evaluate(target, padded), float)[: len(part)])
        return np.concatenate(chunks)

    return in_chunks


@pytest.fixture(scope="module")
def site_log_densities_at_zero():
    @jax.jit
    def compute():
        values = {}
        for name, (prior, _) in PRIORS.items():
            transform = biject_to(prior.support)
            zero = jnp.zeros(transform.inverse_shape(prior.shape()))
            value = transform(zero)
            jacobian = jnp.sum(transform.log_abs_det_jacobian(zero, value))
            values[name] = jnp.sum(prior.log_prob(value)) + jacobian
        return values

    return {name: float(value) for name, value in compute().items()}


def test_density_is_the_product_of_the_priors(target, log_density, site_log_densities_at_zero):
    (found,) = log_density(np.zeros((1, target.dim)))
    assert found == pytest.approx(sum(site_log_densities_at_zero.values()), rel=1e-4)
    assert target.evidence == "normalised"
    assert target.evidence_note == ""


@pytest.mark.parametrize("name", PRIORS)
def test_prior_integrates_to_one(name, target, log_density, site_log_densities_at_zero):
    part = target.site_slices[name]
    size = part.stop - part.start
    count, limit = GRIDS[size]
    t, step = np.linspace(-limit, limit, count, retstep=True)
    axes = np.meshgrid(*[t] * size, indexing="ij")
    t = np.stack([axis.ravel() for axis in axes], axis=1)
    points = np.zeros((len(t), target.dim), np.float32)
    points[:, part] = np.sinh(t)
    jacobian = np.cosh(t).prod(axis=1)
    (at_zero,) = log_density(np.zeros((1, target.dim)))
    density = np.exp(log_density(points) - at_zero + site_log_densities_at_zero[name])
    # Far tails overflow inside float32 distributions; they hold no mass.
    integral = np.nansum(density * jacobian) * step**size
    assert integral == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize("name", [name for name, (_, s) in PRIORS.items() if s is not None])
def test_prior_has_the_support_it_stands_for(name):
    prior, support = PRIORS[name]
    base = getattr(prior.support, "base_constraint", prior.support)
    assert type(base) is type(support)


def test_constrained_values_lie_in_their_supports_and_go_back(target):
    points = target.initial_points(jax.random.key(1), 7)
    values = target.constrain(points)
    assert set(values) == set(PRIORS)
    for name, (prior, _) in PRIORS.items():
        assert np.all(prior.support(values[name])), name
    np.testing.assert_allclose(target.unconstrain(values), points, atol=5e-3)
    single = target.unconstrain({name: value[0] for name, value in values.items()})
    np.testing.assert_allclose(single, points[0], atol=5e-3)
