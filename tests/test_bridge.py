"""Bridge sampling against known evidences, where weights alone do and do not suffice."""

import numpy as np
import pytest
from scipy import stats

from numpyro_onestep.importance import bridge, evidence
from numpyro_onestep.inference_data import mean_ess

LOG_Z = -3.7


def independent(values):
    return float(values.size)


def gaussians(rng, scale, dim, num):
    """Log-weights of a posterior N(0, I) of evidence exp(LOG_Z) under N(0, scale^2 I)."""

    def log_weight(x):
        return LOG_Z + (-0.5 * x**2 * (1.0 - scale**-2) + np.log(scale)).sum(-1)

    chains = rng.standard_normal((4, num // 4, dim))
    return log_weight(chains), log_weight(scale * rng.standard_normal((num, dim)))


@pytest.mark.parametrize("scale, dim", [(0.8, 5), (1.0, 5), (0.6, 5), (1.5, 5), (0.5, 2)])
def test_error_is_calibrated(scale, dim):
    rng = np.random.default_rng(0)
    found = [bridge(*gaussians(rng, scale, dim, 2000), independent) for _ in range(200)]
    z = np.array([(b.log_evidence - LOG_Z) / max(b.se, 1e-12) for b in found])
    if scale == 1.0:
        assert np.abs([b.log_evidence - LOG_Z for b in found]).max() < 1e-6
        assert min(b.overlap for b in found) > 1.0 - 1e-6
        return
    # 200 repeats: the mean within 4.5 standard errors, coverage of 2 se from 88 % to 100 %.
    assert abs(z.mean()) < 4.5 / np.sqrt(200)
    assert 0.88 <= np.mean(np.abs(z) < 2.0)
    assert 0.75 < z.std() < 1.3


def test_correlated_chains_have_a_larger_error():
    rng = np.random.default_rng(1)
    errors = []
    for correlation in (0.0, 0.95):
        noise = rng.standard_normal((4, 4000))
        x = np.empty_like(noise)
        x[:, 0] = noise[:, 0]
        for i in range(1, x.shape[1]):
            x[:, i] = correlation * x[:, i - 1] + np.sqrt(1 - correlation**2) * noise[:, i]
        q = 0.5 * rng.standard_normal(4000)
        log_weight = lambda x: -0.5 * x**2 * (1.0 - 0.5**-2) + np.log(0.5)  # noqa: E731
        errors.append(bridge(log_weight(x), log_weight(q), mean_ess).se)
    assert errors[1] > 1.3 * errors[0]


def test_what_the_proposal_lacks_is_counted():
    """A proposal without a fifth of the posterior: its weights alone are 22 % too low."""
    rng = np.random.default_rng(2)
    cut = stats.norm.ppf(0.8)

    def log_weight(x):
        # Outside the cut the proposal has next to no density.
        return np.where(x < cut, np.log(0.8), 40.0)

    draws = rng.standard_normal(20_000)
    found = bridge(
        log_weight(rng.standard_normal((4, 2000))), log_weight(draws[draws < cut]), independent
    )
    assert abs(found.log_evidence) <= 4.0 * found.se < 0.1
    assert evidence(log_weight(draws[draws < cut])).log_evidence < -0.2


@pytest.mark.parametrize(
    "inside, outside",
    [
        (np.zeros((2, 5)), np.array([0.0, np.nan])),
        (np.zeros((2, 5)), np.array([0.0, np.inf])),
        (np.full((2, 5), np.nan), np.zeros(3)),
        (np.zeros((2, 5)), np.full(3, -np.inf)),
    ],
)
def test_unknown_weights_leave_no_evidence(inside, outside):
    found = bridge(inside, outside, independent)
    assert np.isnan(found.log_evidence) and found.se == np.inf and found.overlap == 0.0


def test_shapes():
    with pytest.raises(ValueError, match=r"expected log weights of chains \(c, n\)"):
        bridge(np.zeros(5), np.zeros(5), independent)


def test_nothing_to_bridge():
    rng = np.random.default_rng(3)
    found = bridge(*gaussians(rng, 0.05, 20, 400), independent)
    assert not found.se < 0.5 and found.overlap < 0.01
