"""Bent coordinates: bijections that have a given skewness, and where they are taken."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import digamma, polygamma

from numpyro_onestep import flow as flows
from numpyro_onestep.preconditioner import Affine, Bent, unbent
from numpyro_onestep.target import build_target
from numpyro_onestep.training import ResampleMove, draw
from numpyro_onestep.training.draws import ess_and_evidence
from numpyro_onestep.training.start import best_bends


def bends(dim, num=5, scale=0.5):
    rng = np.random.default_rng(dim)
    v = rng.standard_normal((num, dim))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    factor = np.eye(dim) + 0.1 * np.tril(rng.standard_normal((dim, dim)))
    arrays = (rng.standard_normal(dim), factor, v, scale * rng.standard_normal(num))
    return Bent(*(jnp.asarray(array, jnp.float32) for array in arrays))


@pytest.mark.parametrize("dim", [1, 2, 6, 37])
def test_there_and_back(dim):
    """The inverse to rounding; the volume against that of the Jacobian by autodiff."""
    bent = bends(dim)
    z = 2.0 * jax.random.normal(jax.random.key(0), (9, dim))
    x = bent.forward(z)
    np.testing.assert_allclose(bent.inverse(x), z, atol=2e-5)
    np.testing.assert_allclose(bent.inverse(x[0]), z[0], atol=2e-5)
    jacobians = jax.vmap(jax.jacobian(bent.forward))(z)
    expected = np.linalg.slogdet(np.asarray(jacobians, np.float64))
    np.testing.assert_array_equal(expected.sign, 1.0)
    np.testing.assert_allclose(bent.log_det_at(z), expected.logabsdet, atol=1e-4)
    # It bends at all.
    straight = Affine(bent.mean, bent.factor)
    assert np.abs(x - straight.forward(z)).max() > 0.1


def test_no_bends_leave_the_fit_as_it_is():
    straight = Affine(bends(20).mean, bends(20).factor)
    z = jax.random.normal(jax.random.key(0), (9, 20))
    np.testing.assert_allclose(unbent(straight, 7).forward(z), straight.forward(z), atol=1e-6)
    np.testing.assert_allclose(unbent(straight, 7).log_det_at(z), straight.log_det_at(z), rtol=1e-6)


def test_bends_have_the_skewness_of_their_ridges():
    """To first order in the weights, `E[He_ijk]` of the image is the sum of ridges.

    Its derivative is `E[u_i He_jk]` summed over the places of i. In 20 dimensions no cell holds
    three coordinates, so nothing is left out. 200,000 points leave 4 % of the norm as noise; a
    missing level would be a quarter of it.
    """
    dim = 20
    bent = dataclasses.replace(bends(dim), mean=jnp.zeros(dim), factor=jnp.eye(dim))
    z = jax.random.normal(jax.random.key(1), (200_000, dim))

    def moved(share):
        return dataclasses.replace(bent, weights=share * bent.weights).forward(z)

    u = np.asarray(jax.jvp(moved, (0.0,), (1.0,))[1], np.float64)
    z = np.asarray(z, np.float64)
    pairs = (z[:, :, None] * z[:, None, :] - np.eye(dim)).reshape(len(z), -1)
    moment = (u.T @ pairs).reshape(dim, dim, dim) / len(z)
    found = moment + moment.transpose(1, 0, 2) + moment.transpose(2, 1, 0)
    v = np.asarray(bent.directions, np.float64)
    expected = np.einsum("r,ri,rj,rk->ijk", np.asarray(bent.weights, np.float64), v, v, v)
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


CONCENTRATION = 4.0


def log_gammas(dim):
    """Logarithms of independent Gamma variables in rotated coordinates."""
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (dim,)))
    own = rotation(dim) @ x
    numpyro.factor("density", jnp.sum(CONCENTRATION * own - jnp.exp(own)))


def rotation(dim):
    return np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0]


def found_bends(scale):
    dim, method = 20, ResampleMove(num_points=1000)
    target = build_target(jax.random.key(0), log_gammas, (dim,))
    mean = jnp.asarray(rotation(dim).T @ np.full(dim, digamma(CONCENTRATION)), jnp.float32)
    sd = np.sqrt(polygamma(1, CONCENTRATION))
    fit = Affine(mean, scale * sd * jnp.eye(dim))
    flow = method.flow(dim)
    identity = flows.identity(flow.steps(flow.init(jax.random.key(1))))
    of_fit = draw(target, fit, identity, jax.random.key(2), 1000)
    found, draws, num_gradients = best_bends(target, fit, dim, identity, of_fit, jax.random.key(3))
    # Three further batches and three offers.
    assert num_gradients == 6000
    return fit, of_fit, found, draws


def test_bends_suffice_where_skewness_is_all_that_a_fit_lacks():
    _, of_fit, found, draws = found_bends(0.95)
    assert isinstance(found, Bent)
    share = ess_and_evidence(draws)[0]
    assert share > 0.5 and share > 2.0 * ess_and_evidence(of_fit)[0]


def test_bends_of_a_bad_fit_are_not_taken():
    """One of three times the width."""
    fit, of_fit, found, draws = found_bends(3.0)
    assert found is fit and draws is of_fit


def test_coordinates_are_bent_where_networks_have_too_few_units():
    method = ResampleMove()
    assert method.num_ridges(128) == 0 and method.num_ridges(129) == 129
    assert method.num_ridges(1000) == 512
