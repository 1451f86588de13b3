"""Evidences out of results, and the reasons for which a result takes no part in a comparison."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from numpyro_onestep.importance import is_finite_weight
from numpyro_onestep.inference_data import (
    INFERENCE_LIBRARY,
    group_dataset,
    group_names,
    inference_library,
    is_result,
    list_attr,
)


@dataclasses.dataclass(frozen=True)
class ModelEvidence:
    """What a comparison needs to know of one model.

    Attributes:
        name: the user's.
        log_evidence: in nats.
        se: its standard error.
        verdict: on the run.
        reasons: of the verdict.
        note: on the evidence, empty for a normalised model.
        digest: of the observed data.
        observed: names and shapes of the observed sites.
        result: the `InferenceData` or `DataTree`.
    """

    name: str
    log_evidence: float
    se: float
    verdict: str
    reasons: tuple[str, ...]
    note: str
    digest: str
    observed: dict[str, tuple[int, ...]]
    result: Any


def read_models(models: Mapping[str, Any]) -> list[ModelEvidence]:
    """The evidence of every model, in the order given.

    Args:
        models: results (of either ArviZ line, fresh or from a netCDF file), or finished
            inferences, by name.

    Raises:
        ValueError: as `compare_evidence` says.
    """
    if not isinstance(models, Mapping):
        raise ValueError(f"expected a dictionary of results by name; got {type(models).__name__}")
    if len(models) < 2:
        raise ValueError(f"expected at least two models to compare; got {list(models)}")
    found = [_read(str(name), model) for name, model in models.items()]
    if len({model.name for model in found}) < len(found):
        raise ValueError(f"expected names that differ as text; got {list(models)}")
    first = found[0]
    for model in found[1:]:
        if model.digest != first.digest:
            raise ValueError(
                f"expected all models to be fitted to the same observed data; model"
                f" {model.name!r} has other data than {first.name!r} (compared by name, type, shape"
                f" and values of the observed sites): got {model.observed} and {first.observed}"
            )
    return found


def _read(name: str, model: Any) -> ModelEvidence:
    result = _result(name, model)
    library = inference_library(result)
    if library != INFERENCE_LIBRARY:
        raise ValueError(
            f"model {name!r}: expected a result of {INFERENCE_LIBRARY}, which holds the evidence;"
            f" got one of {library or 'an unnamed library'!r}"
        )
    verdict = str(result.attrs.get("verdict", ""))
    reasons = tuple(str(reason) for reason in list_attr(result, "verdict_reasons"))
    if verdict == "unreliable":
        raise ValueError(
            f"model {name!r}: expected a verdict of 'reliable' or 'usable_with_weights'; got"
            f" 'unreliable'. {' '.join(reasons)}".rstrip()
        )
    stats = group_dataset(result, "sample_stats")
    missing = sorted({"log_evidence", "log_evidence_se"} - set(stats.data_vars))
    missing += [] if "data_digest" in result.attrs else ["data_digest"]
    if missing:
        raise ValueError(f"model {name!r}: expected a result with {missing}; got none of them")
    log_evidence, se = float(stats["log_evidence"]), float(stats["log_evidence_se"])
    note = str(result.attrs.get("evidence_note", ""))
    if not (math.isfinite(log_evidence) and math.isfinite(se) and se >= 0.0):
        raise ValueError(
            f"model {name!r}: expected a finite log evidence with a finite error; got"
            f" {log_evidence} +- {se}. {_weights(result)}{note}".rstrip()
        )
    return ModelEvidence(
        name=name,
        log_evidence=log_evidence,
        se=se,
        verdict=verdict,
        reasons=reasons,
        note=note,
        digest=str(result.attrs["data_digest"]),
        observed=_observed(result),
        result=result,
    )


def _weights(result: Any) -> str:
    """What is wrong with the weights of a result without an evidence, if anything is."""
    if "importance" not in group_names(result):
        return ""
    log_weight = group_dataset(result, "importance")["log_weight"].to_numpy()
    if unknown := int(np.sum(~is_finite_weight(log_weight))):
        return (
            f"At {unknown} of its {log_weight.size} draws the log weight is NaN or +inf, as the"
            " log-density is there, and nobody knows what they add to the evidence. "
        )
    return "All of its weights are zero. " if np.isneginf(log_weight).all() else ""


def _result(name: str, model: Any) -> Any:
    try:
        result = getattr(model, "inference_data", model)
    except RuntimeError as error:  # an inference that has not run
        raise ValueError(f"model {name!r}: {error}") from error
    if not is_result(result):
        raise ValueError(
            f"model {name!r}: expected a result of `run`, or the inference after it; got"
            f" {type(model).__name__}"
        )
    return result


def _observed(result: Any) -> dict[str, tuple[int, ...]]:
    if "observed_data" not in group_names(result):
        return {}
    dataset = group_dataset(result, "observed_data")
    return {str(name): dataset[name].shape for name in dataset.data_vars}
