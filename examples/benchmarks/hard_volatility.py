"""Stochastic volatility in 100 dimensions, with its evidence from a filter on a grid of states.

Given mu, phi and sigma the log variances are a Markov chain in one dimension, so the likelihood
is a product of matrices; three nested quadratures give the rest.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from hard import HardRow, Truth, element, share

LENGTH = 97


class StationaryAR1(dist.Distribution):
    """A stationary autoregression of `length` steps, by its innovations: linear in the length."""

    arg_constraints = {
        "loc": dist.constraints.real,
        "phi": dist.constraints.unit_interval,
        "scale": dist.constraints.positive,
    }
    support = dist.constraints.real_vector
    pytree_data_fields = ("loc", "phi", "scale")

    def __init__(self, loc: jax.Array, phi: jax.Array, scale: jax.Array, length: int) -> None:
        """Innovations have the sd `scale`, states `scale / sqrt(1 - phi^2)`."""
        self.loc, self.phi, self.scale = loc, phi, scale
        super().__init__(batch_shape=(), event_shape=(length,))

    def _sds(self) -> jax.Array:
        later = jnp.full(self.event_shape[0] - 1, self.scale)
        return jnp.concatenate([(self.scale / jnp.sqrt(1.0 - self.phi**2))[None], later])

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws `(*sample_shape, length)`."""
        noise = self._sds() * jax.random.normal(key, (*sample_shape, *self.event_shape))

        def step(state: jax.Array, one: jax.Array) -> tuple[jax.Array, jax.Array]:
            state = self.phi * state + one
            return state, state

        start = jnp.zeros(sample_shape)
        states = jax.lax.scan(step, start, jnp.moveaxis(noise, -1, 0))[1]
        return self.loc + jnp.moveaxis(states, 0, -1)

    def log_prob(self, value: jax.Array) -> jax.Array:
        """Log-density of `value: (..., length)`."""
        centred = value - self.loc
        before = jnp.concatenate([jnp.zeros_like(centred[..., :1]), centred[..., :-1]], -1)
        return dist.Normal(0.0, self._sds()).log_prob(centred - self.phi * before).sum(-1)


def stochastic_volatility(y: jax.Array) -> None:
    """Returns `y_t ~ N(0, exp(h_t / 2))`, h a stationary AR(1), in its centred form; 100-d."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    phi = numpyro.sample("phi", dist.Beta(18.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    h = numpyro.sample("h", StationaryAR1(mu, phi, sigma, len(y)))
    numpyro.sample("y", dist.Normal(0.0, jnp.exp(0.5 * h)).to_event(1), obs=y)


def _returns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    mu, phi, sigma = -0.5, 0.9, 0.4
    h = [mu + sigma / np.sqrt(1.0 - phi**2) * rng.normal()]
    for _ in range(LENGTH - 1):
        h.append(mu + phi * (h[-1] - mu) + sigma * rng.normal())
    return {"y": np.exp(0.5 * np.array(h)) * rng.normal(size=LENGTH)}


def _nodes(low: float, high: float, num: int) -> tuple[np.ndarray, np.ndarray]:
    node, mass = np.polynomial.legendre.leggauss(num)
    return low + 0.5 * (high - low) * (node + 1.0), 0.5 * (high - low) * mass


def _truth() -> Truth:
    y = _returns()["y"]
    state = np.linspace(-5.5, 5.5, 181)  # (h - mu) in stationary sds
    start = stats.norm.pdf(state) / stats.norm.pdf(state).sum()
    phis, phi_mass = _nodes(0.4, 0.998, 20)
    mus, mu_mass = _nodes(-3.0, 2.5, 18)
    sigmas, sigma_mass = _nodes(0.02, 1.6, 20)
    log_joint = np.empty((len(phis), len(mus), len(sigmas)))
    for i, phi in enumerate(phis):
        there = stats.norm.pdf(state, phi * state[:, None], np.sqrt(1.0 - phi**2))
        there /= there.sum(1, keepdims=True)
        sd = sigmas / np.sqrt(1.0 - phi**2)
        h = mus[:, None, None] + sd[:, None] * state
        rate = np.exp(-h)
        alpha, log_likelihood = np.broadcast_to(start, h.shape), np.zeros(h.shape[:2])
        for t, value in enumerate(y):
            alpha = alpha @ there if t else alpha
            alpha = alpha * np.exp(-0.5 * (h + value**2 * rate))
            total = alpha.sum(-1)
            log_likelihood += np.log(total) - 0.5 * np.log(2.0 * np.pi)
            alpha = alpha / total[..., None]
        log_joint[i] = log_likelihood + stats.beta(18.0, 2.0).logpdf(phi)
    log_joint += stats.norm.logpdf(mus)[:, None] + stats.halfnorm(scale=0.5).logpdf(sigmas)
    top = log_joint.max()
    mass = np.exp(log_joint - top) * phi_mass[:, None, None] * mu_mass[:, None] * sigma_mass
    z = mass.sum()
    marginals = []
    for axis, (name, grid) in enumerate((("phi", phis), ("mu", mus), ("sigma", sigmas))):
        others = tuple(j for j in range(3) if j != axis)
        width = (phi_mass, mu_mass, sigma_mass)[axis]
        # Gauss nodes are too few to add up to quantiles: interpolate the log-density first.
        density = np.log(mass.sum(others) / width)
        fine = np.linspace(grid[0], grid[-1], 4001)
        curve = np.exp(np.interp(fine, grid, density))
        cdf = np.cumsum(curve) / curve.sum()
        points = [float(np.interp(level, cdf, fine)) for level in (0.1, 0.5, 0.9)]
        marginals.append(share(name, element(name), points, (0.1, 0.5, 0.9)))
    return Truth(float(top + np.log(z)), tuple(marginals))


ROWS = (
    HardRow(
        "stochastic_volatility",
        stochastic_volatility,
        _truth,
        LENGTH + 3,
        "100-d, scales tied to a path",
        _returns,
    ),
)
