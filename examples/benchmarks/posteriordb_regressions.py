"""Linear regressions of posteriordb, written for NumPyro as their Stan programs state them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from posteriordb_entry import Data, Entry, flat, flat_positive


def flat_regression(design: jax.Array, y: jax.Array) -> None:
    """No priors at all."""
    beta = flat("beta", design.shape[1])
    sigma = flat_positive("sigma")
    numpyro.sample("y", dist.Normal(design @ beta, sigma), obs=y)


def cauchy_regression(design: jax.Array, y: jax.Array) -> None:
    """A half-Cauchy scale."""
    beta = flat("beta", design.shape[1])
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.sample("y", dist.Normal(design @ beta, sigma), obs=y)


def normal_regression(design: jax.Array, y: jax.Array) -> None:
    """Normal coefficients and a half-normal scale."""
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([design.shape[1]]))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
    numpyro.sample("y", dist.Normal(design @ beta, sigma), obs=y)


def diamonds(design: jax.Array, y: jax.Array) -> None:
    """Unit normal coefficients, a Student-t intercept and half of one for the scale."""
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([design.shape[1]]))
    intercept = numpyro.sample("Intercept", dist.StudentT(3.0, 8.0, 10.0))
    half_t = dist.FoldedDistribution(dist.StudentT(3.0, 0.0, 10.0))
    sigma = numpyro.sample("sigma", half_t)
    numpyro.sample("y", dist.Normal(intercept + design @ b, sigma), obs=y)


def kilpisjarvi(x: jax.Array, y: jax.Array, location: float, scale: float, slope: float) -> None:
    """Temperature in summer by year, neither of them centred."""
    alpha = numpyro.sample("alpha", dist.Normal(location, scale))
    beta = numpyro.sample("beta", dist.Normal(0.0, slope))
    sigma = flat_positive("sigma")
    numpyro.sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)


def columns(*parts: np.ndarray) -> jax.Array:
    """Design matrix (n, 1 + parts) with an intercept."""
    return jnp.asarray(np.stack([np.ones_like(parts[0]), *parts], 1))


def arrays(data: Data) -> dict[str, np.ndarray]:
    """Every value of the data as an array of floats."""
    return {name: np.asarray(value, float) for name, value in data.items()}


def _linear(
    response: Callable[[dict], np.ndarray],
    predictors: Callable[[dict], list[np.ndarray]],
    data: Data,
) -> Data:
    values = arrays(data)
    return {"design": columns(*predictors(values)), "y": jnp.asarray(response(values))}


def _entry(
    name: str,
    model: Callable[..., None],
    response: Callable[[dict], np.ndarray],
    predictors: Callable[[dict], list[np.ndarray]],
) -> Entry:
    return Entry(name, model, partial(_linear, response, predictors))


def _scores(values: np.ndarray, width: float = 1.0) -> np.ndarray:
    return (values - values.mean()) / (width * values.std(ddof=1))


def _times(first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    return [first, second, first * second]


def _volumes(d: dict) -> dict[str, np.ndarray]:
    area = np.log(d["diam1"] * d["diam2"])
    return {
        "volume": area + np.log(d["canopy_height"]),
        "area": area,
        "shape": np.log(d["diam1"] / d["diam2"]),
        "height": np.log(d["total_height"]),
        "density": np.log(d["density"]),
        "group": d["group"],
    }


_SIZES = ("diam1", "diam2", "canopy_height", "total_height", "density")


def _bushes(*names: str) -> Callable[[dict], list[np.ndarray]]:
    return lambda d: [_volumes(d)[name] for name in names]


def _nes(d: dict) -> list[np.ndarray]:
    ages = [(d["age_discrete"] == group).astype(float) for group in (2, 3, 4)]
    return [d["real_ideo"], d["race_adj"], *ages, d["educ1"], d["gender"], d["income"]]


def _diamonds(data: Data) -> Data:
    design = np.asarray(data["X"], float)[:, 1:]
    return {"design": jnp.asarray(design - design.mean(0)), "y": jnp.asarray(data["Y"])}


def _given(data: Data) -> Data:
    return {"design": jnp.asarray(data["X"]), "y": jnp.asarray(data["y"])}


def _kilpisjarvi(data: Data) -> Data:
    return {
        "x": jnp.asarray(data["x"], float),
        "y": jnp.asarray(data["y"]),
        "location": data["pmualpha"],
        "scale": data["psalpha"],
        "slope": data["psbeta"],
    }


def _earn(d: dict) -> np.ndarray:
    return d["earn"]


def _log_earn(d: dict) -> np.ndarray:
    return np.log(d["earn"])


def _score(d: dict) -> np.ndarray:
    return d["kid_score"]


def _log_weight(d: dict) -> np.ndarray:
    return np.log(d["weight"])


_KIDS, _WORK, _BUSH = "kidiq", "kidiq_with_mom_work", "mesquite"
ENTRIES = (
    _entry("earnings-earn_height", flat_regression, _earn, lambda d: [d["height"]]),
    _entry(
        "earnings-log10earn_height",
        flat_regression,
        lambda d: np.log10(d["earn"]),
        lambda d: [d["height"]],
    ),
    _entry("earnings-logearn_height", flat_regression, _log_earn, lambda d: [d["height"]]),
    _entry(
        "earnings-logearn_height_male",
        flat_regression,
        _log_earn,
        lambda d: [d["height"], d["male"]],
    ),
    _entry(
        "earnings-logearn_interaction",
        flat_regression,
        _log_earn,
        lambda d: _times(d["height"], d["male"]),
    ),
    _entry(
        "earnings-logearn_interaction_z",
        flat_regression,
        _log_earn,
        lambda d: _times(_scores(d["height"]), d["male"]),
    ),
    _entry(
        "earnings-logearn_logheight_male",
        flat_regression,
        _log_earn,
        lambda d: [np.log(d["height"]), d["male"]],
    ),
    _entry(f"{_KIDS}-kidscore_momhs", cauchy_regression, _score, lambda d: [d["mom_hs"]]),
    _entry(f"{_KIDS}-kidscore_momiq", cauchy_regression, _score, lambda d: [d["mom_iq"]]),
    _entry(
        f"{_KIDS}-kidscore_momhsiq",
        cauchy_regression,
        _score,
        lambda d: [d["mom_hs"], d["mom_iq"]],
    ),
    _entry(
        f"{_KIDS}-kidscore_interaction",
        cauchy_regression,
        _score,
        lambda d: _times(d["mom_hs"], d["mom_iq"]),
    ),
    _entry(
        f"{_WORK}-kidscore_interaction_c",
        flat_regression,
        _score,
        lambda d: _times(d["mom_hs"] - d["mom_hs"].mean(), d["mom_iq"] - d["mom_iq"].mean()),
    ),
    _entry(
        f"{_WORK}-kidscore_interaction_c2",
        flat_regression,
        _score,
        lambda d: _times(d["mom_hs"] - 0.5, d["mom_iq"] - 100.0),
    ),
    _entry(
        f"{_WORK}-kidscore_interaction_z",
        flat_regression,
        _score,
        lambda d: _times(_scores(d["mom_hs"], 2.0), _scores(d["mom_iq"], 2.0)),
    ),
    _entry(
        f"{_WORK}-kidscore_mom_work",
        flat_regression,
        _score,
        lambda d: [(d["mom_work"] == level).astype(float) for level in (2, 3, 4)],
    ),
    _entry(
        f"{_BUSH}-mesquite",
        flat_regression,
        lambda d: d["weight"],
        lambda d: [*(d[name] for name in _SIZES), d["group"]],
    ),
    _entry(
        f"{_BUSH}-logmesquite",
        flat_regression,
        _log_weight,
        lambda d: [*(np.log(d[name]) for name in _SIZES), d["group"]],
    ),
    _entry(
        f"{_BUSH}-logmesquite_logva",
        flat_regression,
        _log_weight,
        _bushes("volume", "area", "group"),
    ),
    _entry(
        f"{_BUSH}-logmesquite_logvas",
        flat_regression,
        _log_weight,
        _bushes("volume", "area", "shape", "height", "density", "group"),
    ),
    _entry(
        f"{_BUSH}-logmesquite_logvash",
        flat_regression,
        _log_weight,
        _bushes("volume", "area", "shape", "height", "group"),
    ),
    _entry(f"{_BUSH}-logmesquite_logvolume", flat_regression, _log_weight, _bushes("volume")),
    *(
        _entry(f"nes{year}-nes", flat_regression, lambda d: d["partyid7"], _nes)
        for year in range(1972, 2001, 4)
    ),
    Entry("diamonds-diamonds", diamonds, _diamonds),
    Entry("sblrc-blr", normal_regression, _given),
    Entry("sblri-blr", normal_regression, _given),
    Entry("kilpisjarvi_mod-kilpisjarvi", kilpisjarvi, _kilpisjarvi),
)
