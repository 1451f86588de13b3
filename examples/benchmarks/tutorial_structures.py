"""Processes, mixtures and labels as NumPyro's documentation teaches them, in small versions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from scipy import stats

from tutorial_base import Kind, generator


def process(x, y):
    """A Gaussian process, the curve integrated out."""
    variance = numpyro.sample("variance", dist.LogNormal(0.0, 1.0))
    length = numpyro.sample("length", dist.LogNormal(-1.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(-3.0, 1.0))
    k = variance * jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2)
    k = k + (noise + 1e-5) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), k), obs=y)


def _process_data():
    g = generator(20)
    x = np.sort(g.uniform(-1.0, 1.0, 25))
    return {"x": x, "y": np.sin(4.0 * x) + 0.2 * g.normal(size=25)}


def basis(x, y, num=12, bound=1.5):
    """A Gaussian process by eigenfunctions of the Laplacian on [-bound, bound]."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    length = numpyro.sample("length", dist.InverseGamma(3.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(0.5))
    weight = numpyro.sample("weight", dist.Normal(0.0, 1.0).expand([num]).to_event(1))
    root = jnp.arange(1, num + 1) * jnp.pi / (2.0 * bound)
    spectrum = scale * (2.0 * jnp.pi) ** 0.25 * jnp.sqrt(length)
    spectrum = spectrum * jnp.exp(-0.25 * (length * root) ** 2)
    functions = jnp.sin(root * (x[:, None] + bound)) / jnp.sqrt(bound)
    numpyro.sample("y", dist.Normal(functions @ (spectrum * weight), noise), obs=y)


def copula(y):
    """Weibull margins tied by the correlation of a Gaussian copula."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0).expand([2]).to_event(1))
    shape = numpyro.sample("shape", dist.LogNormal(0.0, 0.5).expand([2]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(2, concentration=2.0))
    joint = dist.GaussianCopula(dist.Weibull(scale, shape), correlation_cholesky=factor)
    with numpyro.plate("points", len(y)):
        numpyro.sample("y", joint, obs=y)


def _copula_data():
    g = generator(21)
    normal = g.multivariate_normal([0.0, 0.0], [[1.0, 0.6], [0.6, 1.0]], 80)
    return {"y": stats.weibull_min([1.2, 2.0], scale=[1.0, 2.0]).ppf(stats.norm.cdf(normal))}


def categories(y):
    """Counts of four categories in groups whose shares vary."""
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.ones(4)))
    concentration = numpyro.sample("concentration", dist.LogNormal(2.0, 1.0))
    total = y.sum(-1)
    with numpyro.plate("groups", len(y)):
        numpyro.sample("y", dist.DirichletMultinomial(concentration * shares, total), obs=y)


def _categories_data():
    g = generator(22)
    shares = g.dirichlet([6.0, 4.0, 3.0, 2.0], 15)
    return {"y": g.multinomial(40, shares)}


def mixture(y):
    """Two clusters; the label of each point is summed out."""
    share = numpyro.sample("share", dist.Beta(2.0, 2.0))
    low = numpyro.sample("low", dist.Normal(-2.0, 1.0))
    high = numpyro.sample("high", dist.Normal(2.0, 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("points", len(y)):
        label = numpyro.sample("label", dist.Bernoulli(share), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(jnp.where(label == 1, high, low), scale), obs=y)


def _mixture_data():
    g = generator(23)
    return {"y": np.concatenate([g.normal(-1.8, 0.8, 20), g.normal(1.7, 0.8, 30)])}


def sticks(y, num=5):
    """A Dirichlet process of normals, cut off at `num` sticks; centres may change places."""
    concentration = numpyro.sample("concentration", dist.Gamma(2.0, 1.0))
    with numpyro.plate("sticks", num - 1):
        stick = numpyro.sample("stick", dist.Beta(1.0, concentration))
    with numpyro.plate("clusters", num):
        centre = numpyro.sample("centre", dist.Normal(0.0, 4.0))
    rest = jnp.concatenate([jnp.ones(1), jnp.cumprod(1.0 - stick)])
    weights = rest * jnp.concatenate([stick, jnp.ones(1)])
    clusters = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(centre, 1.0))
    numpyro.sample("y", clusters, obs=y)


def hidden_states(y):
    """A hidden Markov chain of two states, summed out step by step."""
    stay = numpyro.sample("stay", dist.Beta(8.0, 2.0).expand([2]).to_event(1))
    level = numpyro.sample("level", dist.Normal(jnp.array([-1.0, 1.0]), 0.5).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    change = jnp.stack([jnp.stack([stay[0], 1 - stay[0]]), jnp.stack([1 - stay[1], stay[1]])])

    def step(state, value):
        state = numpyro.sample(
            "state", dist.Categorical(change[state]), infer={"enumerate": "parallel"}
        )
        numpyro.sample("y", dist.Normal(level[state], scale), obs=value)
        return state, None

    scan(step, 0, y)


def _hidden_states_data():
    g = generator(24)
    state, y = 0, []
    for _ in range(60):
        state = state if g.random() < 0.85 else 1 - state
        y.append((-1.2, 1.1)[state] + 0.5 * g.normal())
    return {"y": np.array(y)}


def autoregression(y):
    """An AR(2) process, its errors given by the data and the parameters."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    phi = numpyro.sample("phi", dist.Normal(0.0, 0.5).expand([2]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    mean = a + phi[0] * y[1:-1] + phi[1] * y[:-2]
    numpyro.sample("y", dist.Normal(mean, noise), obs=y[2:])


def _autoregression_data():
    g = generator(25)
    y = [0.0, 0.0]
    for _ in range(100):
        y.append(0.2 + 0.6 * y[-1] - 0.3 * y[-2] + 0.5 * g.normal())
    return {"y": np.array(y)}


def smoothing(y, season=4):
    """Holt-Winters: level, trend and season smoothed along the series."""
    rates = numpyro.sample("rates", dist.Beta(1.0, 1.0).expand([3]).to_event(1))
    first = numpyro.sample("first", dist.Normal(0.0, 2.0))
    trend = numpyro.sample("trend", dist.Normal(0.0, 0.5))
    pattern = numpyro.sample("pattern", dist.Normal(0.0, 1.0).expand([season]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))

    def step(carry, value):
        level, slope, seasons = carry
        mean = level + slope + seasons[0]
        new = rates[0] * (value - seasons[0]) + (1.0 - rates[0]) * (level + slope)
        slope = rates[1] * (new - level) + (1.0 - rates[1]) * slope
        last = rates[2] * (value - new) + (1.0 - rates[2]) * seasons[0]
        return (new, slope, jnp.concatenate([seasons[1:], last[None]])), mean

    _, mean = jax.lax.scan(step, (first, trend, pattern), jnp.asarray(y))
    numpyro.sample("y", dist.Normal(mean, noise), obs=y)


def _smoothing_data():
    g = generator(26)
    t = np.arange(40)
    return {"y": 0.05 * t + np.tile([0.8, -0.2, -0.9, 0.3], 10) + 0.3 * g.normal(size=40)}


def volatility(y):
    """Returns whose log-variance walks at random."""
    step = numpyro.sample("step", dist.Exponential(20.0))
    df = numpyro.sample("df", dist.Exponential(0.1))
    walk = numpyro.sample("walk", dist.GaussianRandomWalk(step, len(y)))
    numpyro.sample("y", dist.StudentT(df, 0.0, jnp.exp(walk)), obs=y)


def _volatility_data():
    g = generator(27)
    walk = np.cumsum(0.1 * g.normal(size=50))
    return {"y": np.exp(walk) * g.standard_t(8.0, 50)}


def predators(y, num=20, dt=0.1, inner=5):
    """Lotka-Volterra, solved by Runge-Kutta steps of fixed length."""
    theta = numpyro.sample("theta", dist.LogNormal(jnp.log(jnp.array([0.6, 0.3, 0.8, 0.3])), 0.3))
    start = numpyro.sample("start", dist.LogNormal(jnp.log(3.0), 0.5).expand([2]).to_event(1))
    noise = numpyro.sample("noise", dist.LogNormal(-1.5, 0.5))

    def slope(z):
        prey = (theta[0] - theta[1] * z[1]) * z[0]
        return jnp.stack([prey, (theta[3] * z[0] - theta[2]) * z[1]])

    def step(z, _):
        a = slope(z)
        b = slope(z + 0.5 * dt * a)
        c = slope(z + 0.5 * dt * b)
        d = slope(z + dt * c)
        return z + dt * (a + 2.0 * b + 2.0 * c + d) / 6.0, z

    _, path = jax.lax.scan(step, start, None, length=num * inner)
    numpyro.sample("y", dist.LogNormal(jnp.log(path[::inner]), noise), obs=y)


def _predators_data():
    g = generator(28)
    z, path = np.array([3.0, 2.0]), []
    for i in range(2000):
        if i % 100 == 0:
            path.append(z)
        rate = np.array([(0.6 - 0.3 * z[1]) * z[0], (0.3 * z[0] - 0.8) * z[1]])
        z = z + 0.005 * rate
    return {"y": np.exp(np.log(path) + 0.2 * g.normal(size=(20, 2)))}


def recapture(caught):
    """Animals marked at the start: whether they live at each later catch is summed out."""
    survival = numpyro.sample("survival", dist.Logistic(0.0, 1.0))
    catch = numpyro.sample("catch", dist.Logistic(0.0, 1.0))
    num, times = caught.shape
    with numpyro.plate("animals", num, dim=-1):
        alive = jnp.ones(num)
        for t in range(times):
            # -20 for never: at a probability of zero the gradient is not finite.
            lives = dist.Bernoulli(logits=jnp.where(alive == 1, survival, -20.0))
            alive = numpyro.sample(f"alive_{t}", lives, infer={"enumerate": "parallel"})
            seen = dist.Bernoulli(logits=jnp.where(alive == 1, catch, -20.0))
            numpyro.sample(f"caught_{t}", seen, obs=caught[:, t])


def _recapture_data():
    g = generator(29)
    alive = np.cumprod(g.random((40, 4)) < 0.75, 1)
    return {"caught": (g.random((40, 4)) < 0.6) * alive}


def annotators(votes):
    """Dawid and Skene: the true class of each item is summed out, annotators err by habit."""
    num_items, num_annotators = votes.shape
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("annotators", num_annotators, dim=-2), numpyro.plate("classes", 2):
        habit = numpyro.sample("habit", dist.Beta(*jnp.array([[1.0, 4.0], [4.0, 1.0]])))
    with numpyro.plate("items", num_items, dim=-1):
        label = numpyro.sample("label", dist.Categorical(share), infer={"enumerate": "parallel"})
        for j in range(num_annotators):
            numpyro.sample(f"vote_{j}", dist.Bernoulli(habit[j, label]), obs=votes[:, j])


def _annotators_data():
    g = generator(30)
    label = g.integers(0, 2, 40)
    right = g.random((40, 4)) < [0.9, 0.85, 0.75, 0.65]
    return {"votes": np.where(right, label[:, None], 1 - label[:, None])}


def funnel():
    """Neal's funnel, without data."""
    width = numpyro.sample("width", dist.Normal(0.0, 3.0))
    numpyro.sample("x", dist.Normal(0.0, jnp.exp(width / 2.0)).expand([9]).to_event(1))


KINDS = (
    Kind("process", "Gaussian process", process, _process_data),
    Kind("basis", "Hilbert-space approximation of a Gaussian process", basis, _process_data),
    Kind("copula", "Gaussian copula, LKJ", copula, _copula_data),
    Kind("categories", "Dirichlet-multinomial", categories, _categories_data),
    Kind("mixture", "mixture with enumerated labels", mixture, _mixture_data),
    Kind("sticks", "Dirichlet-process mixture", sticks, _mixture_data),
    Kind("hidden_states", "hidden Markov model, enumerated", hidden_states, _hidden_states_data),
    Kind("autoregression", "AR(2)", autoregression, _autoregression_data),
    Kind("smoothing", "Holt-Winters time series", smoothing, _smoothing_data),
    Kind("volatility", "stochastic volatility", volatility, _volatility_data),
    Kind("predators", "predator and prey: an ODE", predators, _predators_data),
    Kind("recapture", "capture and recapture, enumerated", recapture, _recapture_data),
    Kind("annotators", "annotators of items, enumerated", annotators, _annotators_data),
    Kind("funnel", "Neal's funnel", funnel, dict),
)
