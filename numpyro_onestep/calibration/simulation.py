"""Simulated data sets, one after the other, through one sampler that is trained on from the last.

Talts, Betancourt, Simpson, Vehtari and Gelman (2018), "Validating Bayesian inference algorithms
with simulation-based calibration"; the log-density as a further test quantity after Modrak et al.
(2023), "Simulation-based calibration checking for Bayesian computation: the choice of test
quantities shapes sensitivity".
"""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from numpyro_onestep.calibration.result import Calibration
from numpyro_onestep.host_random import host_generator
from numpyro_onestep.importance import weighted_ranks
from numpyro_onestep.inference import OneStepInference
from numpyro_onestep.inference.arguments import typed_key
from numpyro_onestep.inference_data import AxisNames, make_dataset
from numpyro_onestep.target import Target, build_target, given_observations, prior_draws

_DIM = ("simulation",)
# The log-density of the draws, under the name that it has in the group sample_stats.
_LP = "lp"


def simulation_based_calibration(
    inference: OneStepInference,
    rng_key: jax.Array,
    *args: Any,
    num_simulations: int = 100,
    simulator: Callable[..., Any] | None = None,
    progress_bar: bool = True,
    **kwargs: Any,
) -> Calibration:
    """Fits data sets that are simulated from the prior, and ranks the truth among the draws.

    Where model and inference are right, the rank of a simulated parameter among the draws of the
    posterior of the data simulated from it is uniform. One sampler serves all data sets: trained
    for the first, and carried on by `refit` to each of the others, so that nothing is compiled
    again. Every fit has the checks and the verdict of an ordinary one.

    Ctrl-C ends the simulations with those that are finished.

    Args:
        inference: holds the model and the options of the fits; it is not changed.
        rng_key: a typed or a legacy key; the result is a function of it.
        *args: arguments of the model as for `run`, observed values included: these say which sites
            are data and of what shape, and are replaced by simulated ones.
        num_simulations: number of data sets.
        simulator: a NumPyro model of the same arguments and sites that parameters and data are
            drawn from, to see whether `inference` is right about it; its own model by default.
        progress_bar: a bar over the simulations; always off where the variable `CI` is set.
        **kwargs: keyword arguments of the model.

    Returns:
        Ranks, verdicts and, from these, a table and a plot.

    Raises:
        ValueError: for fewer than two simulations, a model that observes nothing or is not
            normalised (improper priors, factors, missing values filled in), or a simulator that
            lacks some of its sites; from the first data set, as `run`.
        KeyboardInterrupt: before the first fit is finished.

    Example:
        >>> inference = OneStepInference(model)
        >>> calibration = simulation_based_calibration(inference, jax.random.key(0), x, y=y)
        >>> calibration.plot()
    """
    if isinstance(num_simulations, bool) or not num_simulations >= 2:
        raise ValueError(f"expected num_simulations >= 2; got {num_simulations!r}")
    rng_key = typed_key(rng_key)
    key_draw, key_fit, key_rank = (jax.random.fold_in(rng_key, i) for i in range(3))
    model = inference._build_target(key_draw, args, kwargs)
    _check(model)
    source = model if simulator is None else build_target(key_draw, simulator, args, kwargs)
    latent, observed = prior_draws(source, key_draw, num_simulations)
    _check_sites(model, latent, observed)
    observed = {name: observed[name] for name in model.observed_data}
    worker = _worker(inference, given_observations(model))
    # Of each simulation all or nothing, whenever Ctrl-C comes.
    made: list[tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    names = inference._names(model)
    try:
        for i in tqdm(
            range(num_simulations),
            disable=not progress_bar or bool(os.environ.get("CI")),
            desc="simulations",
        ):
            data = {name: jnp.asarray(values[i]) for name, values in observed.items()}
            key = jax.random.fold_in(key_fit, i)
            began = time.perf_counter()
            fitted, fit = _fit(worker, key, data, first=i == 0)
            fit["seconds"] = time.perf_counter() - began
            truth = {name: values[i] for name, values in latent.items()}
            if fitted is None:
                rank = {name: np.full_like(value, np.nan) for name, value in made[0][1].items()}
                truth = {name: truth.get(name, np.float64(np.nan)) for name in rank}
            else:
                rank, truth = _ranks(fitted, truth, jax.random.fold_in(key_rank, i))
                # A sampler that lost its way is no start for the next.
                if i == 0 or fit["verdict"] != "unreliable":
                    worker = fitted
            made.append((fit, rank, truth))
    except KeyboardInterrupt:
        if not made:
            raise
    fits, ranks, truths = (list(part) for part in zip(*made, strict=True))
    table = pd.DataFrame(fits, index=pd.RangeIndex(len(fits), name=_DIM[0]))
    return Calibration(_stacked(ranks, names), _stacked(truths, names), table, int(num_simulations))


def _check(model: Target) -> None:
    if not model.observed_data:
        raise ValueError(
            "expected arguments with which the model observes a site; got ones that leave all free"
        )
    if model.evidence != "normalised":
        raise ValueError(
            "expected a model whose prior and likelihood are normalised, so that its own draws"
            f" follow them; got one of which this is known: {model.evidence_note}"
        )


def _check_sites(
    model: Target, latent: dict[str, np.ndarray], observed: dict[str, np.ndarray]
) -> None:
    """Fails for a simulator that is none for this model."""
    known = {name: values.shape[1:] for name, values in (latent | observed).items()}
    wanted = {name: value.shape for name, value in model.observed_data.items()}
    wanted |= model.program.constrained_shapes
    for name, shape in wanted.items():
        if known.get(name) != shape:
            raise ValueError(
                f"expected a simulator with the site {name!r} of shape {shape}; got"
                f" {known.get(name, 'none of that name')}"
            )


def _worker(inference: OneStepInference, model: Callable[..., Any]) -> OneStepInference:
    """An inference with the same options for another form of the model, and without a run."""
    worker = copy.copy(inference)
    worker.sampler = SimpleNamespace(model=model)
    worker._progress_bar = False
    worker._checkpoint = None
    worker._log_likelihood = False
    worker._fit, worker._run, worker._result = None, None, None
    return worker


def _fit(
    worker: OneStepInference, rng_key: jax.Array, data: dict[str, jax.Array], *, first: bool
) -> tuple[OneStepInference | None, dict[str, Any]]:
    """A fit of its own and what is to be said of it; None for data that cannot be fitted."""
    fitted = copy.copy(worker)
    with warnings.catch_warnings():
        # Of the verdict: counted instead.
        warnings.filterwarnings("ignore", "the verdict on this run")
        try:
            result = (fitted.run if first else fitted.refit)(rng_key, data)
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            # Data without a finite density, a callback of the model that raises, too little memory.
            if first:
                raise
            return None, {"verdict": "unreliable", "reasons": str(error)}
    assert fitted._fit is not None
    if fitted._fit.history.stopped == "interrupted":
        # Half a fit says nothing of the whole ones.
        raise KeyboardInterrupt
    stats = result["sample_stats"]
    fit = {
        "verdict": fitted.verdict.label,
        "log_evidence": float(stats["log_evidence"]),
        "log_evidence_se": float(stats["log_evidence_se"]),
        "pareto_k": float(stats["pareto_k"]),
        "ess_fraction": float(stats["ess_importance"]) / len(fitted._finished().draws.x),
        "reasons": " ".join(fitted.verdict.reasons),
    }
    return fitted, fit


def _ranks(
    fitted: OneStepInference, truth: dict[str, np.ndarray], rng_key: jax.Array
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Ranks of all sites and of the log-density, and what was ranked."""
    run = fitted._finished()
    draws, target = run.draws, run.fit.target
    values = {name: run.samples[name] for name in run.samples if name in truth}
    compared = {name: np.asarray(truth[name]) for name in values}
    if _LP not in values:
        values[_LP] = draws.log_density
        compared[_LP] = np.asarray(_log_density(target, target.unconstrain(truth)), np.float64)
    generator = host_generator(rng_key)
    ranks = {
        name: weighted_ranks(
            compared[name], values[name], draws.log_weight, draws.sign, generator=generator
        )
        for name in values
    }
    return ranks, compared


@jax.jit
def _log_density(target: Target, x: jax.Array) -> jax.Array:
    return target.log_density(x)


def _stacked(arrays: list[dict[str, np.ndarray]], names: AxisNames) -> xr.Dataset:
    return make_dataset(
        {name: np.stack([each[name] for each in arrays]) for name in arrays[0]}, _DIM, names
    )
