"""The table of reference posteriors: model, data, evidence with its error and source, goals."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
from numpyro.infer import Predictive
from numpyro.infer.reparam import LocScaleReparam, Reparam
from scipy.special import gammaln
from scipy.stats import norm

import data
import densities
import models
from named import named

DataDir = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Goals:
    """What a run must reach, everything included: the bounds of the main job's table.

    The log evidence must come within `log_z` of `centre`, the truth where that is None.
    """

    log_z: float
    ess: float
    pareto_k: float
    wall: float
    centre: float | None = None


@dataclass(frozen=True)
class Row:
    """One posterior. `load(data_dir)` gives the model's keyword arguments.

    `log_z` is the reference log evidence (None where there is none), `log_z_error` its standard
    error. `reparam` only helps the long reference run; it moves neither evidence nor posterior.
    `draws(seed, num)` gives independent draws of the latent sites, `(num, *event)` each, where the
    target can be sampled. An `improper` prior has no evidence.
    """

    name: str
    model: Callable[..., None]
    load: Callable[[DataDir], dict[str, Any]]
    dim: int
    log_z: float | None
    log_z_error: float = 0.0
    source: str = ""
    goals: Goals | None = None
    reparam: dict[str, Reparam] = field(default_factory=dict)
    draws: Callable[[int, int], dict[str, np.ndarray]] | None = None
    improper: bool = False


def conjugate_truth(
    x: np.ndarray, y: np.ndarray, *, prior_scale: float, shape: float, rate: float
) -> tuple[float, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Log evidence, and (mean, sd) of `beta` and `sigma2`, of the conjugate regression.

    Marginally beta is multivariate t with 2 a degrees of freedom and shape (b / a) V, where a, b
    and V are the posterior shape, rate and covariance factor (Gelman et al., BDA3, ch. 14).
    """
    n, p = x.shape
    precision = x.T @ x + np.eye(p) / prior_scale**2
    mean = np.linalg.solve(precision, x.T @ y)
    a = shape + 0.5 * n
    b = rate + 0.5 * (y @ y - mean @ precision @ mean)
    log_z = (
        -0.5 * n * math.log(2.0 * math.pi)
        - p * math.log(prior_scale)
        - 0.5 * np.linalg.slogdet(precision)[1]
        + shape * math.log(rate)
        - a * math.log(b)
        + gammaln(a)
        - gammaln(shape)
    )
    beta_sd = np.sqrt(b / (a - 1.0) * np.diag(np.linalg.inv(precision)))
    sigma2 = b / (a - 1.0)
    moments = {
        "beta": (mean, beta_sd),
        "sigma2": (np.array(sigma2), np.array(sigma2 / math.sqrt(a - 2.0))),
    }
    return float(log_z), moments


def _fixed(arrays: Callable[[], dict[str, Any]]) -> Callable[[DataDir], dict[str, Any]]:
    return lambda data_dir: arrays()


def _uniform_means(components: int, dim: int, bound: float, seed: int = 0) -> dict[str, Any]:
    return {"means": np.random.default_rng(seed).uniform(-bound, bound, (components, dim))}


def _prior_draws(
    model: Callable[..., None], **arguments: Any
) -> Callable[[int, int], dict[str, np.ndarray]]:
    """Draws of a model without data: of the target, where that is a normalised distribution."""

    def draws(seed: int, num: int) -> dict[str, np.ndarray]:
        found = Predictive(model, num_samples=num)(jax.random.key(seed), **arguments)
        return {name: np.asarray(value) for name, value in found.items()}

    return draws


def _mixture(name: str, means: np.ndarray, *, scale: float = 1.0) -> Row:
    model = partial(densities.gaussian_mixture, scale=scale)
    arguments = {"means": means}
    return Row(
        name,
        model,
        _fixed(lambda: dict(arguments)),
        means.shape[1],
        0.0,
        source="normalised",
        draws=_prior_draws(model, **arguments),
    )


def _wells(name: str, **sizes: Any) -> Row:
    return Row(
        name,
        partial(densities.multi_well, **sizes),
        _fixed(dict),
        sizes["dim"],
        densities.multi_well_log_z(**sizes),
        source=_PRODUCT,
        draws=partial(densities.multi_well_draws, **sizes),
    )


_PRODUCT = "product of one-dimensional integrals"
_NINE = np.array([(a, b) for a in (-5.0, 0.0, 5.0) for b in (-5.0, 0.0, 5.0)])
_STUDENT = _uniform_means(10, 50, 10.0)
_EIGHT_SCHOOLS_Z = -31.3113
_QUADRATURE = "quadrature (reference.py --quadrature)"
_BRIDGE = "bridge sampling from long NUTS runs (references/)"

ROWS = (
    Row(
        "eight_schools",
        models.eight_schools,
        _fixed(lambda: dict(data.EIGHT_SCHOOLS)),
        10,
        _EIGHT_SCHOOLS_Z,
        source=_QUADRATURE,
        goals=Goals(0.02, 0.9, 0.5, 40.0),
    ),
    Row(
        "german_credit",
        partial(models.logistic_regression, prior_scale=10.0, sign=-1.0),
        data.german_credit,
        25,
        -585.0997,
        0.0010,
        source=_BRIDGE,
        goals=Goals(0.02, 0.9, 0.5, 60.0, centre=-585.094),
    ),
    Row(
        "breast_cancer",
        models.logistic_regression,
        _fixed(data.breast_cancer),
        31,
        -55.2265,
        0.0025,
        source=_BRIDGE,
        goals=Goals(0.05, 0.5, 0.7, 60.0),
    ),
    Row(
        "seeds",
        models.seeds,
        _fixed(lambda: dict(data.SEEDS)),
        26,
        -73.4050,
        0.0020,
        source=_BRIDGE,
        goals=Goals(0.05, 0.5, 0.7, 90.0, centre=-73.40),
        reparam={"b": LocScaleReparam(0.0)},
    ),
    Row(
        "conjugate_regression",
        partial(models.conjugate_regression, **data.CONJUGATE_PRIOR),
        _fixed(data.conjugate),
        12,
        conjugate_truth(**data.conjugate(), **data.CONJUGATE_PRIOR)[0],
        source="analytic",
        goals=Goals(0.02, 0.9, 0.5, 40.0),
    ),
    Row(
        "eight_schools_centred",
        partial(models.eight_schools, centred=True),
        _fixed(lambda: dict(data.EIGHT_SCHOOLS)),
        10,
        _EIGHT_SCHOOLS_Z,
        source=_QUADRATURE,
        reparam={"theta": LocScaleReparam(0.0)},
    ),
    Row(
        "ionosphere",
        models.logistic_regression,
        partial(data.labelled, "ionosphere"),
        35,
        -111.6121,
        0.0039,
        source=_BRIDGE,
    ),
    Row(
        "sonar",
        models.logistic_regression,
        partial(data.labelled, "sonar"),
        61,
        -108.3821,
        0.0031,
        source=_BRIDGE,
    ),
    Row(
        "brownian_motion",
        models.brownian_motion,
        _fixed(lambda: dict(data.BROWNIAN)),
        32,
        1.1898,
        0.0075,
        source=_BRIDGE,
    ),
    Row(
        "normal_means",
        models.normal_means,
        _fixed(lambda: dict(data.NORMAL_MEANS)),
        2,
        float(np.sum(norm(0.0, math.hypot(1.0, 0.5)).logpdf(data.NORMAL_MEANS["y"]))),
        source="analytic",
    ),
    # No long run for the rest: means or sds of some scalars do not exist, or one chain stays in
    # one mode.
    Row(
        "horseshoe",
        models.horseshoe_regression,
        _fixed(data.diabetes),
        23,
        None,
    ),
    Row(
        "german_credit_flat",
        partial(models.flat_logistic_regression, sign=-1.0),
        data.german_credit,
        25,
        None,
        source="improper prior: no evidence",
        improper=True,
    ),
    Row(
        "funnel",
        densities.funnel,
        _fixed(dict),
        10,
        0.0,
        source="normalised",
        draws=_prior_draws(densities.funnel),
    ),
    # The nine of arXiv 2111.15141: variance 0.3.
    _mixture("gaussian_mixture_9", _NINE, scale=0.3**0.5),
    _mixture("gaussian_mixture_40", **_uniform_means(40, 2, 40.0)),
    _mixture("gaussian_mixture_40_50d", **_uniform_means(40, 50, 40.0)),
    _wells("multi_well_5", dim=5, wells=5, offset=4.0),
    _wells("multi_well_50", dim=50, wells=5, offset=2.0),
    Row(
        "many_well_32",
        densities.many_well,
        _fixed(dict),
        32,
        densities.many_well_log_z(),
        source=_PRODUCT,
        draws=densities.many_well_draws,
    ),
    Row(
        "student_mixture",
        densities.student_mixture,
        _fixed(lambda: dict(_STUDENT)),
        50,
        0.0,
        source="normalised",
        draws=_prior_draws(densities.student_mixture, **_STUDENT),
    ),
    Row(
        "cox_process",
        densities.log_gaussian_cox,
        data.pines,
        1600,
        501.807,
        0.041,
        source="paths of PIS; the best published value is 497.85",
    ),
)


by_name = partial(named, ROWS)
