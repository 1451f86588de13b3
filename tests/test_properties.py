"""Properties that hold for every set of weights, every map and every way to write a model down."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam
from stacks import SHAPES, random_flow

from numpyro_onestep import flow as flows
from numpyro_onestep import importance as imp
from numpyro_onestep.target import build_target

# ------------------------------------------------------------------------------------ weights

LOG_WEIGHTS = st.integers(4, 60).flatmap(
    lambda n: arrays(np.float64, n, elements=st.floats(-30.0, 30.0))
)
many = functools.partial(settings, deadline=None)


@given(log_w=LOG_WEIGHTS, shift=st.floats(-1e4, 1e4))
@many(max_examples=50)
def test_a_constant_factor_moves_the_evidence_and_nothing_else(log_w, shift):
    one, other = imp.evidence(log_w), imp.evidence(log_w + shift)
    assert_allclose(other.log_evidence - shift, one.log_evidence, atol=1e-8)
    assert_allclose(other.se, one.se, rtol=1e-6)
    assert_allclose(imp.ess(log_w + shift).fraction, imp.ess(log_w).fraction, rtol=1e-8)
    assert_allclose(imp.tail_excess(log_w + shift), imp.tail_excess(log_w), atol=1e-8)


@given(log_w=LOG_WEIGHTS, seed=st.integers(0, 100))
@example(log_w=np.array([0.0, -2.0, 0.0, -2.0]), seed=0)
@many(max_examples=50)
def test_the_order_of_draws_does_not_matter(log_w, seed):
    rng = np.random.default_rng(seed)
    sign = rng.choice([-1.0, 1.0], log_w.size, p=[0.1, 0.9])
    order = rng.permutation(log_w.size)
    one, other = imp.evidence(log_w, sign), imp.evidence(log_w[order], sign[order])
    assert_allclose(other.log_evidence, one.log_evidence, rtol=1e-9, atol=1e-9)
    assert_allclose(other.delta_se, one.delta_se, rtol=1e-6)
    assert_allclose(imp.ess(log_w[order], sign[order]).count, imp.ess(log_w, sign).count, rtol=1e-9)
    x = rng.normal(size=log_w.size)
    means = [imp.weighted_mean(x[i], log_w[i], sign[i]).value for i in (slice(None), order)]
    assert_allclose(means[0], means[1], rtol=1e-6, atol=1e-6)


@given(log_w=LOG_WEIGHTS)
@many(max_examples=50)
def test_bounds_of_the_evidence_by_jensen(log_w):
    """ELBO <= log Z <= EUBO <= log Z - log(ESS / S), for the weighted draws as the posterior."""
    found, share = imp.evidence(log_w), imp.ess(log_w).fraction
    weight = imp.scaled_weights(log_w)[0]
    eubo = weight @ log_w / weight.sum()
    assert 0.0 < share <= 1.0 + 1e-12
    assert imp.elbo(log_w) <= found.log_evidence + 1e-9
    assert found.log_evidence <= eubo + 1e-9
    assert eubo <= found.log_evidence - np.log(share) + 1e-9


@given(log_w=LOG_WEIGHTS, copies=st.integers(2, 4))
@many(max_examples=30)
def test_copies_of_draws_are_worth_no_more_than_the_draws(log_w, copies):
    repeated = np.tile(log_w, copies)
    assert_allclose(imp.evidence(repeated).log_evidence, imp.evidence(log_w).log_evidence)
    assert_allclose(imp.ess(repeated).fraction, imp.ess(log_w).fraction)


@given(log_w=LOG_WEIGHTS, a=st.floats(-1e3, 1e3), b=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
@many(max_examples=50)
def test_estimates_follow_an_affine_change_of_units(log_w, a, b, seed):
    x = np.random.default_rng(seed).normal(size=log_w.size)
    for estimate in (imp.weighted_mean, functools.partial(imp.weighted_quantile, prob=0.3)):
        before, after = estimate(x, log_weight=log_w), estimate(a + b * x, log_weight=log_w)
        assert_allclose(after.value, a + b * before.value, rtol=1e-8, atol=1e-8 * b)
        assert_allclose(after.mcse, b * before.mcse, rtol=1e-5, atol=1e-8 * (abs(a) + b))


# ------------------------------------------------------------------------------- determinants

DIM = 3
POINTS = arrays(np.float32, (4, DIM), elements=st.floats(-4.0, 4.0, width=32))


@functools.cache
def _both_determinants():
    @jax.jit
    def both(blocks, z):
        jacobian = jax.vmap(jax.jacfwd(functools.partial(flows.apply, blocks)))(z)
        return jax.vmap(flows.apply_with_log_det, in_axes=(None, 0))(blocks, z), jacobian

    return both


@given(z=POINTS, seed=st.integers(0, 1000), scale=st.floats(0.0, 0.5))
@many(max_examples=40)
def test_determinant_of_every_map_is_that_of_its_jacobian(z, seed, scale):
    flow, params = random_flow(SHAPES["dim < width"], scale, seed)
    (_, log_det, sign), jacobian = _both_determinants()(flow.steps(params), z)
    want_sign, want = np.linalg.slogdet(np.asarray(jacobian, np.float64))
    # Single precision: near a fold the determinant is a small difference of large numbers.
    clear = want > -5.0
    assert_allclose(np.asarray(log_det)[clear], want[clear], atol=2e-2)
    assert_allclose(np.asarray(sign)[clear], want_sign[clear])


@given(z=POINTS, seed=st.integers(0, 1000), order=st.permutations(range(DIM)))
@many(max_examples=30)
def test_names_of_coordinates_do_not_change_a_determinant(z, seed, order):
    flow, params = random_flow(SHAPES["dim < width"], 0.3, seed)
    blocks, order = flow.steps(params), np.array(order)
    renamed = blocks._replace(
        hidden=blocks.hidden[..., order],
        gate=blocks.gate[:, order],
        shift=blocks.shift[:, order],
    )
    (image, log_det, sign), _ = _both_determinants()(blocks, z)
    (there, there_log_det, there_sign), _ = _both_determinants()(renamed, z[:, order])
    assert_allclose(there, np.asarray(image)[:, order], rtol=1e-3, atol=1e-3)
    clear = np.asarray(log_det) > -5.0
    assert_allclose(np.asarray(there_log_det)[clear], np.asarray(log_det)[clear], atol=2e-2)
    assert_allclose(np.asarray(there_sign)[clear], np.asarray(sign)[clear])


# ------------------------------------------------------------- one posterior, written many ways

Y = np.array([1.2, -0.3, 0.8])


def centred():
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(theta, 0.5).to_event(1), obs=Y)


def other_order():
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(theta, 0.5).to_event(1), obs=Y)


def other_units():
    """mu in other units, x = 5 + 2 u, and tau by its square."""
    mu = 5.0 + 2.0 * numpyro.sample("u", dist.Normal(-2.5, 1.5))
    square = dist.TransformedDistribution(dist.HalfNormal(2.0), dist.transforms.PowerTransform(2.0))
    tau = jnp.sqrt(numpyro.sample("variance", square))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(theta, 0.5).to_event(1), obs=Y)


def scaled(c):
    centred()
    numpyro.factor("constant", c)


non_centred = reparam(centred, config={"theta": LocScaleReparam(0.0)})


@functools.cache
def log_density_of(model, *args):
    target = build_target(jax.random.key(0), model, args, {})
    return target, jax.jit(target.log_density)


def flat(target, **sites):
    x = np.zeros(target.dim, np.float32)
    for name, value in sites.items():
        x[target.site_slices[name]] = value
    return x


UNCONSTRAINED = arrays(np.float32, 5, elements=st.floats(-2.0, 2.0, width=32))


@given(x=UNCONSTRAINED)
@many(max_examples=40)
def test_a_model_is_the_same_however_it_is_written(x):
    """log gamma plus the log-determinant between the coordinates agrees at every point."""
    mu, log_tau, theta = x[0], x[1], x[2:]
    target, log_density = log_density_of(centred)
    value = float(log_density(flat(target, mu=mu, tau=log_tau, theta=theta)))

    swapped, swapped_log_density = log_density_of(other_order)
    there = flat(swapped, mu=mu, tau=log_tau, theta=theta)
    assert float(swapped_log_density(there)) == pytest.approx(value, rel=1e-5, abs=1e-4)

    # dmu/du = 2, dlog tau/dlog variance = 1/2: the volumes cancel.
    units, units_log_density = log_density_of(other_units)
    there = flat(units, u=(mu - 5.0) / 2.0, variance=2.0 * log_tau, theta=theta)
    assert float(units_log_density(there)) == pytest.approx(value, rel=1e-4, abs=1e-3)

    # theta = mu + tau raw: three factors of tau.
    raw, raw_log_density = log_density_of(non_centred)
    there = flat(raw, mu=mu, tau=log_tau, theta_decentered=(theta - mu) / np.exp(log_tau))
    expected = value + 3.0 * float(log_tau)
    assert float(raw_log_density(there)) == pytest.approx(expected, rel=1e-4, abs=1e-3)

    moved, moved_log_density = log_density_of(scaled, 7.0)
    there = flat(moved, mu=mu, tau=log_tau, theta=theta)
    assert float(moved_log_density(there)) == pytest.approx(value + 7.0, rel=1e-5, abs=1e-4)
