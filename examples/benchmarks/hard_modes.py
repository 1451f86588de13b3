"""Separate modes, and modes that hide, with analytic or quadrature answers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import special, stats

import densities
from hard import HardRow, Marginal, Truth, element, from_grid, grid_posterior, share


def normal_mixture(weights, means, scales, *, dim: int = 1) -> None:
    """Isotropic normals `(k,)`, each centre repeated along all `dim` axes."""
    means, scales = jnp.asarray(means, float), jnp.asarray(scales, float)
    parts = dist.Normal(
        jnp.tile(means[:, None], (1, dim)), jnp.tile(scales[:, None], (1, dim))
    ).to_event(1)
    mixing = dist.Categorical(probs=jnp.asarray(weights))
    numpyro.sample("x", dist.MixtureSameFamily(mixing, parts))


def _mixture_marginal(i: int, weights, means, scales) -> Marginal:
    low = min(m - 8.0 * s for m, s in zip(means, scales, strict=True))
    high = max(m + 8.0 * s for m, s in zip(means, scales, strict=True))
    near = [m + s * np.linspace(-8.0, 8.0, 2001) for m, s in zip(means, scales, strict=True)]
    grid = np.unique(np.concatenate([np.linspace(low, high, 20001), *near]))
    density = sum(
        w * stats.norm(m, s).pdf(grid) for w, m, s in zip(weights, means, scales, strict=True)
    )
    return from_grid(f"x[{i}]", element("x", i), grid, density)


def _hidden(weights, means, *, cut: float) -> Truth:
    modes = share("modes", element("x", 0), [cut], [weights[0]])
    return Truth(0.0, (modes, _mixture_marginal(0, weights, means, (1.0, 1.0))))


def _spike(dim: int) -> Truth:
    inside = lambda s: np.abs(np.asarray(s["x"]) - 0.7).max(1)  # noqa: E731
    # The bump's own mass within 0.01 of the spike is below 1e-2 of the spike's.
    bump = (stats.norm.cdf(0.71) - stats.norm.cdf(0.69)) ** dim
    return Truth(0.0, (share("spike", inside, [0.01], [0.5 + 0.5 * bump]),))


def _spike_row(dim: int) -> HardRow:
    model = partial(
        normal_mixture, weights=(0.5, 0.5), means=(0.0, 0.7), scales=(1.0, 1e-3), dim=dim
    )
    why = "half of the mass in a spike a thousandth as wide"
    return HardRow(f"spike_{dim}", model, partial(_spike, dim), dim, why)


def _hidden_row(place: float) -> HardRow:
    weights, means = (0.1, 0.9), (0.0, place)
    model = partial(normal_mixture, weights=weights, means=means, scales=(1.0, 1.0))
    truth = partial(_hidden, weights, means, cut=0.5 * place)
    return HardRow(
        f"hidden_{place:.0f}", model, truth, 1, f"nine tenths of the mass at {place:.0f}"
    )


def _gmm40_means(dim: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-40.0, 40.0, (40, dim))


def _gmm40(dim: int) -> Truth:
    marginals = []
    for i, centres in enumerate(_gmm40_means(dim).T):
        grid = np.linspace(-46.0, 46.0, 20001)
        density = stats.norm.pdf(grid[:, None] - centres).sum(1)
        marginals.append(from_grid(f"x[{i}]", element("x", i), grid, density))
    return Truth(0.0, tuple(marginals))


def _gmm40_row(name: str, dim: int) -> HardRow:
    truth, why = partial(_gmm40, dim), f"forty modes in {dim} dimensions"
    return HardRow(
        name,
        densities.gaussian_mixture,
        truth,
        dim,
        why,
        lambda: {"means": _gmm40_means(dim)},
    )


def _multi_well() -> Truth:
    modes = [share(f"sign of x[{i}]", element("x", i), [0.0], [0.5]) for i in range(5)]
    x = np.linspace(-5.0, 5.0, 200_001)
    return Truth(float(5 * np.log(np.trapezoid(np.exp(-((x**2 - 4.0) ** 2)), x))), tuple(modes))


def _many_well() -> Truth:
    a = np.linspace(-4.0, 4.0, 200_001)
    log_density = 0.5 * a + 6.0 * a**2 - a**4
    density = np.exp(log_density - log_density.max())
    one = np.log(np.trapezoid(density, a)) + log_density.max() + 0.5 * np.log(2.0 * np.pi)
    low = np.trapezoid(density[a <= 0.0], a[a <= 0.0]) / np.trapezoid(density, a)
    modes = [share(f"sign of a[{i}]", element("a", i), [0.0], [low]) for i in (0, 7, 15)]
    return Truth(float(16 * one), tuple(modes))


def _student_mixture_means() -> np.ndarray:
    return np.random.default_rng(0).uniform(-10.0, 10.0, (10, 50))


def _student_mixture() -> Truth:
    grid = np.linspace(-200.0, 200.0, 200_001)
    density = stats.t(2.0).pdf(grid[:, None] - _student_mixture_means()[:, 0]).sum(1)
    return Truth(0.0, (from_grid("x[0]", element("x", 0), grid, density),))


def sign_symmetric(y: jax.Array) -> None:
    """Only the square of x is measured: two mirror images."""
    x = numpyro.sample("x", dist.Normal(0.0, 3.0))
    numpyro.sample("y", dist.Normal(x**2, 0.5), obs=y)


_SQUARES = np.array([4.1, 3.9, 4.0, 4.2])


def _sign_symmetric() -> Truth:
    x = np.linspace(-6.0, 6.0, 40_001)
    log_joint = stats.norm(0.0, 3.0).logpdf(x)
    log_joint = log_joint + stats.norm.logpdf(_SQUARES[:, None], x**2, 0.5).sum(0)
    truth = grid_posterior({"x": x}, log_joint, {"x": element("x")})
    return Truth(truth.log_z, (*truth.marginals, share("sign", element("x"), [0.0], [0.5])))


def label_switching(y: jax.Array) -> None:
    """Two clusters of equal weight whose names may be swapped."""
    centre = numpyro.sample("centre", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    mixing = dist.Categorical(probs=jnp.array([0.5, 0.5]))
    numpyro.sample("y", dist.MixtureSameFamily(mixing, dist.Normal(centre, 1.0)), obs=y)


def _clusters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"y": np.concatenate([rng.normal(-2.0, 1.0, 40), rng.normal(2.0, 1.0, 40)])}


def _label_switching() -> Truth:
    grid = np.linspace(-5.0, 5.0, 301)
    term = stats.norm.logpdf(_clusters()["y"][:, None], grid)
    log_joint = np.zeros((len(grid), len(grid)))
    for one in term:
        log_joint += np.logaddexp(one[:, None], one[None, :]) - np.log(2.0)
    prior = stats.norm(0.0, 5.0).logpdf(grid)
    log_joint += prior[:, None] + prior[None, :]
    values = {"first": element("centre", 0), "second": element("centre", 1)}
    truth = grid_posterior({"first": grid, "second": grid}, log_joint, values)
    order = lambda s: element("centre", 0)(s) - element("centre", 1)(s)  # noqa: E731
    return Truth(truth.log_z, (*truth.marginals, share("order", order, [0.0], [0.5])))


def weak_mixture(y: jax.Array) -> None:
    """A mixture of two where the data show one cluster: weight and centres barely identified."""
    weight = numpyro.sample("weight", dist.Uniform(0.0, 1.0))
    centre = numpyro.sample("centre", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    mixing = dist.Categorical(probs=jnp.stack([weight, 1.0 - weight]))
    numpyro.sample("y", dist.MixtureSameFamily(mixing, dist.Normal(centre, 1.0)), obs=y)


def _one_cluster() -> dict[str, np.ndarray]:
    return {"y": np.random.default_rng(3).normal(0.0, 1.0, 30)}


def _weak_mixture() -> Truth:
    node, mass = np.polynomial.legendre.leggauss(80)
    weight, mass = 0.5 * (node + 1.0), 0.5 * mass
    centre = np.linspace(-9.0, 9.0, 151)
    term = stats.norm.pdf(_one_cluster()["y"][:, None], centre)
    prior = stats.norm(0.0, 2.0).pdf(centre)
    joint = np.empty((len(weight), len(centre), len(centre)))
    for k, w in enumerate(weight):
        log_likelihood = sum(np.log(w * one[:, None] + (1.0 - w) * one[None, :]) for one in term)
        joint[k] = np.exp(log_likelihood + 60.0) * prior[:, None] * prior[None, :] * mass[k]
    first = joint.sum((0, 2))
    z = np.trapezoid(np.trapezoid(joint.sum(0), centre), centre)
    by_weight = joint.sum((1, 2))
    low = by_weight[weight < 0.5].sum() / by_weight.sum()
    inner = by_weight[(weight > 0.25) & (weight < 0.75)].sum() / by_weight.sum()
    return Truth(
        float(np.log(z) - 60.0),
        (
            from_grid("centre[0]", element("centre", 0), centre, first),
            share("weight", element("weight"), [0.5], [low]),
            share("middle", lambda s: np.abs(element("weight")(s) - 0.5), [0.25], [inner]),
        ),
    )


def spike_and_slab(y: jax.Array) -> None:
    """Effects that are tiny or large, measured with an error between the two."""
    scale = jnp.array([0.05, 2.0])
    prior = dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2.0), dist.Normal(0.0, scale))
    with numpyro.plate("effect", len(y)):
        beta = numpyro.sample("beta", prior)
        numpyro.sample("y", dist.Normal(beta, 0.5), obs=y)


_EFFECTS = np.array([0.1, -0.4, 1.2, 1.3, -1.1, 0.9, 2.5, -1.0, 0.0, 1.1])


def _spike_and_slab() -> Truth:
    spread = np.hypot(np.array([0.05, 2.0]), 0.5)
    by_part = 0.5 * stats.norm.pdf(_EFFECTS[:, None], 0.0, spread)
    grid = np.unique(np.concatenate([np.linspace(-8.0, 8.0, 8001), np.linspace(-0.4, 0.4, 8001)]))
    prior = 0.5 * (stats.norm.pdf(grid, 0.0, 0.05) + stats.norm.pdf(grid, 0.0, 2.0))
    marginals = [
        from_grid(f"beta[{i}]", element("beta", i), grid, prior * stats.norm.pdf(y, grid, 0.5))
        for i, y in enumerate(_EFFECTS)
        if i in (0, 2, 4, 6)
    ]
    return Truth(float(np.log(by_part.sum(1)).sum()), tuple(marginals))


def cauchy_location(y: jax.Array) -> None:
    """A centre for measurements that contradict each other, with Cauchy errors."""
    centre = numpyro.sample("centre", dist.Cauchy(0.0, 5.0))
    numpyro.sample("y", dist.Cauchy(centre, 1.0), obs=y)


_CONTRADICTORY = np.array([-5.0, -4.0, 5.5, 6.0, 25.0])


def _cauchy_location() -> Truth:
    grid = np.linspace(-200.0, 200.0, 400_001)
    log_joint = stats.cauchy(0.0, 5.0).logpdf(grid)
    log_joint = log_joint + stats.cauchy.logpdf(_CONTRADICTORY[:, None], grid, 1.0).sum(0)
    return grid_posterior({"centre": grid}, log_joint, {"centre": element("centre")})


def angle(y: jax.Array) -> None:
    """A direction around pi, where the circle is cut open."""
    mean = numpyro.sample("mean", dist.VonMises(0.0, 0.5))
    numpyro.sample("y", dist.VonMises(mean, 2.0), obs=y)


_DIRECTIONS = np.array([3.0, -3.0, 2.6, -2.5, 3.1, -2.0, 2.2, -3.1])


def _angle() -> Truth:
    resultant = 0.5 + 2.0 * np.exp(1j * _DIRECTIONS).sum()
    kappa, n = abs(resultant), len(_DIRECTIONS)
    log_i0 = lambda k: np.log(special.i0e(k)) + k  # noqa: E731
    log_z = log_i0(kappa) - log_i0(0.5) - n * (np.log(2.0 * np.pi) + log_i0(2.0))
    grid = np.linspace(-np.pi, np.pi, 20_001)
    density = np.exp(kappa * (np.cos(grid - np.angle(resultant)) - 1.0))
    return Truth(float(log_z), (from_grid("mean", element("mean"), grid, density),))


ROWS = (
    _hidden_row(10.0),
    _hidden_row(30.0),
    _spike_row(1),
    _spike_row(2),
    _gmm40_row("gmm40", 2),
    _gmm40_row("gmm40_50d", 50),
    HardRow("multi_well", densities.multi_well, _multi_well, 5, "32 modes"),
    HardRow("many_well", densities.many_well, _many_well, 32, "65,536 modes"),
    HardRow(
        "student_mixture",
        densities.student_mixture,
        _student_mixture,
        50,
        "ten heavy-tailed modes",
        lambda: {"means": _student_mixture_means()},
    ),
    HardRow(
        "sign_symmetric",
        sign_symmetric,
        _sign_symmetric,
        1,
        "mirror images",
        lambda: {"y": _SQUARES},
    ),
    HardRow("label_switching", label_switching, _label_switching, 2, "two names", _clusters),
    HardRow("weak_mixture", weak_mixture, _weak_mixture, 3, "barely identified", _one_cluster),
    HardRow(
        "spike_and_slab",
        spike_and_slab,
        _spike_and_slab,
        10,
        "1024 modes, some narrow",
        lambda: {"y": _EFFECTS},
    ),
    HardRow(
        "cauchy_location",
        cauchy_location,
        _cauchy_location,
        1,
        "modes on a heavy tail",
        lambda: {"y": _CONTRADICTORY},
    ),
    HardRow("angle", angle, _angle, 1, "a circle cut open", lambda: {"y": _DIRECTIONS}),
)
