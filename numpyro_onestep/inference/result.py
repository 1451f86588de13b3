"""The result of a run: its groups, and the record of training beside them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import numpyro

from numpyro_onestep.inference.run import Fit, Posterior, Run
from numpyro_onestep.inference_data import AxisNames, argument_names, build, check_names
from numpyro_onestep.target import Target, pointwise_log_likelihood

_MAX_LIKELIHOOD_VALUES = 50_000_000


def check_axis_names(target: Target, names: AxisNames) -> None:
    """Fails on dims and coords that do not fit the groups of a result before any work is done.

    Raises:
        ValueError: naming the site.
    """
    # Factors are observations without elements.
    observed = {name: v.shape for name, v in target.observed_data.items() if v.size}
    latent = {name: leaf.shape for name, leaf in target.shapes.items()}
    given = {name: v.shape for name, v in target.constant_data.items()}
    check_names(latent, names)
    check_names(observed, names)
    check_names(given, argument_names(given, latent | observed, names))


def to_inference_data(
    run: Run,
    names: AxisNames,
    *,
    num_steps: int,
    posterior: Posterior,
    seconds: Mapping[str, float],
    log_likelihood: bool,
) -> Any:
    """`InferenceData` (ArviZ 0.23) or `xarray.DataTree` (1.x) of a finished run.

    `seconds` are wall times by part; `log_likelihood` asks for the pointwise group.
    """
    target, draws = run.fit.target, run.draws
    return build(
        posterior={name: value[run.indices] for name, value in run.pool_samples.items()},
        sample_stats={**run.draw_stats, **run.scalar_stats},
        importance=run.samples,
        importance_weights={
            "log_weight": draws.log_weight,
            "psis_log_weight": run.psis_log_weight,
            "log_det": draws.log_det,
            "sign": draws.sign,
            **({} if run.trace_log_weight is None else {"trace_log_weight": run.trace_log_weight}),
        },
        moved_log_weight=run.moved_log_weight,
        training=_record(run.fit, seconds),
        names=names,
        attrs={
            "numpyro_onestep_version": version("numpyro-onestep"),
            "numpyro_version": numpyro.__version__,
            "jax_version": jax.__version__,
            "verdict": run.verdict.label,
            "verdict_reasons": list(run.verdict.reasons),
            "evidence_note": target.evidence_note,
            "data_digest": target.digest,
            "num_steps": num_steps,
            "posterior_draws": posterior if run.rescue is None else "nuts",
            "fallback": "" if run.rescue is None else "nuts",
        },
        log_likelihood=_pointwise(run) if log_likelihood else None,
        observed_data=target.observed_data,
        constant_data=target.constant_data,
    )


def _record(fit: Fit, seconds: Mapping[str, float]) -> dict[str, Any]:
    history = fit.history
    return {
        "gradient_norm": ("training_step", np.asarray(history.losses)),
        "ess_fraction": ("round", np.asarray(history.ess_fraction)),
        "round_log_evidence": ("round", np.asarray(history.log_evidence)),
        "gaussian_elbo": ("gaussian_step", np.asarray(history.gaussian_elbo)),
        "num_rounds": len(history.ess_fraction),
        "num_target_gradients": history.num_gradients * fit.trained.gradients_each,
        "num_target_densities": history.num_densities,
        **{f"seconds_{part}": value for part, value in seconds.items()},
    }


def _pointwise(run: Run) -> dict[str, np.ndarray] | None:
    """Pointwise log-likelihood of the posterior draws, where it is well-defined."""
    target = run.fit.target
    observed = sum(np.size(value) for value in target.observed_data.values())
    # Enumerated sites would be drawn at random, not summed out.
    if not observed or target.enumerates:
        return None
    if observed * run.indices.size > _MAX_LIKELIHOOD_VALUES:
        warnings.warn(
            f"the result holds no log_likelihood group: {observed} observations for "
            f"{run.indices.size} draws are too many; numpyro.infer.log_likelihood computes it "
            "for a part of them",
            # The caller of `OneStepInference.run` or `refit`.
            stacklevel=5,
        )
        return None
    # Rejections repeat draws: each one is looked at once.
    unique, where = np.unique(run.indices, return_inverse=True)
    values = pointwise_log_likelihood(target, run.pool_x[unique])
    return {
        name: value[where.reshape(run.indices.shape)]
        for name, value in values.items()
        if name in target.observed_data
    }
