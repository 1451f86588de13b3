"""Hard shapes of one piece: funnels, bends, tails, edges and scales, with analytic answers."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

import densities
from hard import HardRow, Truth, element, from_grid, log_integral, quantiles, share

NORMAL = stats.norm()


def _independent(site: str, *distributions, places: tuple[int, ...] = (), log_z: float = 0.0):
    """Truth of independent elements of one site: the distribution of each place named."""
    places = places or tuple(range(len(distributions)))
    pairs = zip(places, distributions, strict=True)
    return Truth(log_z, tuple(quantiles(f"{site}[{i}]", element(site, i), d) for i, d in pairs))


def _funnel() -> Truth:
    scaled = lambda s: element("x", 0)(s) * np.exp(-0.5 * element("v")(s))  # noqa: E731
    v = stats.norm(0.0, 3.0)
    return Truth(0.0, (quantiles("v", element("v"), v), quantiles("x / scale", scaled, NORMAL)))


def funnel_matrix(*, dim: int = 10) -> None:
    """Neal's funnel through a covariance matrix, which no change of location and scale undoes."""
    v = numpyro.sample("v", dist.Normal(0.0, 3.0))
    covariance = jnp.exp(v) * jnp.eye(dim - 1)
    numpyro.sample("x", dist.MultivariateNormal(jnp.zeros(dim - 1), covariance))


def banana() -> None:
    """Rosenbrock's banana as a normalised density."""
    x = numpyro.sample("x", dist.Normal(0.0, 10.0))
    numpyro.sample("y", dist.Normal(0.03 * (x**2 - 100.0), 1.0))


def _banana() -> Truth:
    across = lambda s: element("y")(s) - 0.03 * (element("x")(s) ** 2 - 100.0)  # noqa: E731
    x = quantiles("x", element("x"), stats.norm(0.0, 10.0))
    return Truth(0.0, (x, quantiles("across", across, NORMAL)))


def rosenbrock(*, arms: int = 4) -> None:
    """A trunk with `arms` narrow valleys `y = x^2` (Pagani et al. 2022, normalised)."""
    x = numpyro.sample("x", dist.Normal(1.0, 1.0))
    with numpyro.plate("arm", arms):
        numpyro.sample("y", dist.Normal(x**2, 0.1))


def _rosenbrock() -> Truth:
    across = lambda s: (element("y", 0)(s) - element("x")(s) ** 2) / 0.1  # noqa: E731
    x = quantiles("x", element("x"), stats.norm(1.0, 1.0))
    return Truth(0.0, (x, quantiles("across", across, NORMAL)))


def snake() -> None:
    """A sine wave of four turns, as thin as a tenth of its height."""
    x = numpyro.sample("x", dist.Normal(0.0, 4.0))
    numpyro.sample("y", dist.Normal(3.0 * jnp.sin(1.5 * x), 0.3))


def _snake() -> Truth:
    across = lambda s: (element("y")(s) - 3.0 * np.sin(1.5 * element("x")(s))) / 0.3  # noqa: E731
    x = quantiles("x", element("x"), stats.norm(0.0, 4.0))
    return Truth(0.0, (x, quantiles("across", across, NORMAL)))


_RADIUS, _WIDTH = 5.0, 0.2


def ring() -> None:
    """A thin ring in the plane."""
    base = dist.Normal(0.0, 5.0)
    x = numpyro.sample("x", base.expand([2]).to_event(1))
    radius = jnp.sqrt((x**2).sum() + 1e-12)
    numpyro.factor("ring", -0.5 * ((radius - _RADIUS) / _WIDTH) ** 2 - base.log_prob(x).sum())


def _ring() -> Truth:
    r = np.linspace(_RADIUS - 10 * _WIDTH, _RADIUS + 10 * _WIDTH, 4001)
    log_density = np.log(r) - 0.5 * ((r - _RADIUS) / _WIDTH) ** 2
    angle = lambda s: np.arctan2(element("x", 1)(s), element("x", 0)(s))  # noqa: E731
    radius = lambda s: np.hypot(element("x", 0)(s), element("x", 1)(s))  # noqa: E731
    return Truth(
        log_integral(r, log_density) + np.log(2.0 * np.pi),
        (
            from_grid("radius", radius, r, np.exp(log_density)),
            quantiles("angle", angle, stats.uniform(-np.pi, 2.0 * np.pi)),
        ),
    )


def cross() -> None:
    """Two bars across each other, ten times as long as wide."""
    bars = dist.Normal(jnp.zeros((2, 2)), jnp.array([[3.0, 0.3], [0.3, 3.0]])).to_event(1)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2.0), bars))


def _cross() -> Truth:
    grid = np.linspace(-20.0, 20.0, 20001)
    density = stats.norm(0.0, 3.0).pdf(grid) + stats.norm(0.0, 0.3).pdf(grid)
    sites = [from_grid(f"x[{i}]", element("x", i), grid, density) for i in range(2)]
    longer = lambda s: np.abs(element("x", 0)(s)) - np.abs(element("x", 1)(s))  # noqa: E731
    return Truth(0.0, (*sites, share("bar", longer, [0.0], [0.5])))


def correlated(*, dim: int, correlation: float = 0.9999) -> None:
    """Equal correlations close to one."""
    covariance = (1.0 - correlation) * jnp.eye(dim) + correlation
    numpyro.sample("x", dist.MultivariateNormal(jnp.zeros(dim), covariance))


def _correlated() -> Truth:
    apart = lambda s: (element("x", 0)(s) - element("x", 1)(s)) / np.sqrt(2e-4)  # noqa: E731
    x = quantiles("x[0]", element("x", 0), NORMAL)
    return Truth(0.0, (x, quantiles("difference", apart, NORMAL)))


SCALES = np.logspace(-6.0, 6.0, 13)


def scales() -> None:
    """Parameters of sd 1e-6 to 1e6, three sds from zero."""
    numpyro.sample("x", dist.Normal(3.0 * SCALES, SCALES).to_event(1))


def student_t(*, dim: int = 10, freedom: float = 2.0) -> None:
    """Independent Student t: no variance at two degrees of freedom, Cauchy at one."""
    numpyro.sample("x", dist.StudentT(freedom, 0.0, 1.0).expand([dim]).to_event(1))


def small_gamma() -> None:
    """Gamma of shape 0.1: over thirty orders of magnitude towards zero."""
    numpyro.sample("x", dist.Gamma(0.1, 1.0).expand([2]).to_event(1))


def correlation_matrix(*, size: int = 15) -> None:
    """A uniform prior over correlation matrices, as a Cholesky factor."""
    numpyro.sample("factor", dist.LKJCholesky(size, 1.0))


def _correlation_matrix(*, size: int = 15) -> Truth:
    # Every correlation of LKJ(1) is Beta(size / 2, size / 2) on (-1, 1).
    marginal = stats.beta(size / 2.0, size / 2.0, loc=-1.0, scale=2.0)
    first = element("factor", 1, 0)
    last = lambda s: (np.asarray(s["factor"])[:, -1] * np.asarray(s["factor"])[:, -2]).sum(-1)  # noqa: E731
    return Truth(0.0, (quantiles("r[1,0]", first, marginal), quantiles("r[-1,-2]", last, marginal)))


def step() -> None:
    """A density that falls by ten where x[0] passes zero."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.factor("step", jnp.where(x[0] > 0.0, jnp.log(0.1), 0.0))


def _step() -> Truth:
    upper = 0.5 + 0.1 * (stats.norm.cdf(1.0) - 0.5)
    below = np.array([stats.norm.cdf(-1.0), 0.5, upper]) / 0.55
    places = share("x[0]", element("x", 0), [-1.0, 0.0, 1.0], below)
    return Truth(float(np.log(0.55)), (places, quantiles("x[1]", element("x", 1), NORMAL)))


def plateau() -> None:
    """Nearly flat inside a box, fifteen nats lower outside: gradients know nothing of the edge."""
    x = numpyro.sample("x", dist.Normal(0.0, 10.0).expand([3]).to_event(1))
    numpyro.factor("box", jnp.where(jnp.all(jnp.abs(x) < 3.0), 0.0, -15.0))


def _plateau() -> Truth:
    inside = (stats.norm.cdf(0.3) - stats.norm.cdf(-0.3)) ** 3
    log_z = np.log(inside + np.exp(-15.0) * (1.0 - inside))
    edge = stats.truncnorm(-0.3, 0.3, scale=10.0)
    return _independent("x", edge, edge, edge, log_z=float(log_z))


def undefined_region() -> None:
    """The logarithm of a negative number where x[0] < -0.5: NaN over a third of the prior."""
    x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.factor("logarithm", jnp.log(x[0] + 0.5))


def _undefined_region() -> Truth:
    grid = np.linspace(-0.5, 8.0, 20001)
    density = stats.norm.pdf(grid) * (grid + 0.5)
    return Truth(
        float(np.log(np.trapezoid(density, grid))),
        (from_grid("x[0]", element("x", 0), grid, density),),
    )


ROWS = (
    HardRow("funnel", densities.funnel, _funnel, 10, "a neck e^9 narrower than its mouth"),
    HardRow(
        "funnel_matrix", funnel_matrix, _funnel, 10, "a funnel that no reparametrisation undoes"
    ),
    HardRow("banana", banana, _banana, 2, "a bend"),
    HardRow("rosenbrock", rosenbrock, _rosenbrock, 5, "four narrow bends at once"),
    HardRow("snake", snake, _snake, 2, "many bends"),
    HardRow("ring", ring, _ring, 2, "a hole; no single centre"),
    HardRow("cross", cross, _cross, 2, "two directions"),
    HardRow("correlated_2", partial(correlated, dim=2), _correlated, 2, "correlation 0.9999"),
    HardRow("correlated_50", partial(correlated, dim=50), _correlated, 50, "correlation 0.9999"),
    HardRow(
        "scales",
        scales,
        partial(_independent, "x", *(stats.norm(3.0 * s, s) for s in SCALES)),
        13,
        "sds from 1e-6 to 1e6",
    ),
    HardRow(
        "student_t",
        student_t,
        partial(_independent, "x", stats.t(2.0), stats.t(2.0)),
        10,
        "no variance",
    ),
    HardRow(
        "cauchy",
        partial(student_t, dim=2, freedom=1.0),
        partial(_independent, "x", stats.cauchy(), stats.cauchy()),
        2,
        "no mean",
    ),
    HardRow(
        "small_gamma",
        small_gamma,
        partial(_independent, "x", stats.gamma(0.1), stats.gamma(0.1)),
        2,
        "a long exponential tail in log coordinates",
    ),
    HardRow(
        "correlation_matrix", correlation_matrix, _correlation_matrix, 105, "constrained, 105-d"
    ),
    HardRow("step", step, _step, 2, "a discontinuity"),
    HardRow("plateau", plateau, _plateau, 3, "no gradient at the edge"),
    HardRow("undefined_region", undefined_region, _undefined_region, 2, "NaN where x < -0.5"),
)
