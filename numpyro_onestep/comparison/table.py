r"""Bayes factors and model probabilities with their errors.

With log evidences `l_i`, independent errors `s_i` and prior weights `pi_i` of models `i`,

    log BF_i = l_i - l_b                       (b: the model of the largest evidence),
    p_i = pi_i exp(l_i) / sum_j pi_j exp(l_j),
    var(p_i) = p_i^2 [ (1 - p_i)^2 s_i^2 + sum_{j != i} p_j^2 s_j^2 ]

(Kass and Raftery 1995, "Bayes factors", eq. 2 and section 3.2; the last line is the delta method).
Only differences of logarithms are exponentiated, so evidences of any size do.
"""

from __future__ import annotations

import dataclasses
import html
import textwrap
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from numpyro_onestep.comparison.averaging import Predictions, average
from numpyro_onestep.comparison.reading import ModelEvidence, read_models
from numpyro_onestep.plots import plot_evidence

_HEADING = "Models by evidence (natural logarithms; log BF: against the first)"
_WIDTH = 88


@dataclasses.dataclass(frozen=True)
class EvidenceComparison:
    """Models side by side; prints as a table, also in notebooks.

    Attributes:
        table: one row per model, the largest evidence first, with the columns

            * `log_evidence`, `se`: in nats;
            * `log_bayes_factor`, `log_bayes_factor_se`: log evidence less that of the first row;
              0 in that row. `exp` of its negative is how many times better the data are predicted
              by the first model;
            * `prior`: prior probability of the model;
            * `probability`, `probability_se`: posterior probability among these models;
            * `verdict`: on the run that the evidence comes from.
        notes: sentences on evidences that need them, by model.
        results: what was compared, by model.
    """

    table: pd.DataFrame
    notes: dict[str, tuple[str, ...]]
    results: dict[str, Any]

    @property
    def best(self) -> str:
        """Name of the model with the largest evidence."""
        return str(self.table.index[0])

    def plot(self) -> Figure:
        """Log Bayes factors and model probabilities with two standard errors; see the class."""
        return plot_evidence(self.table)

    def average_predictions(
        self,
        rng_key: jax.Array,
        predictions: Predictions = "posterior_predictive",
        *,
        num_samples: int | None = None,
    ) -> Any:
        """Predictions averaged over the models: draws of each in proportion to its probability.

        Bayesian model averaging (Hoeting et al. 1999, eq. 1): the density of new data is the mean
        of the models' predictive densities under the model probabilities. The errors of the
        probabilities are not propagated. Models share draws by systematic sampling, so their
        numbers are as close to the probabilities as whole numbers get; a draw repeats only where a
        model has fewer draws than its share.

        Args:
            rng_key: chooses the draws; typed or legacy.
            predictions: name of a group of the results that holds predictive draws, such as
                "posterior_predictive" or "predictions"; or the draws themselves by model and site,
                `(n, *event)`, as `Predictive` returns them for equally weighted samples. Sites
                that some model lacks are left out.
            num_samples: number of draws; by default the smallest number that a model has.

        Returns:
            `InferenceData` (ArviZ 0.23) or `DataTree` (1.x) with the one group of that name
            ("predictions" for draws given as they are), dims (chain, draw, ...), one chain. The
            coordinate `model` of its draws tells which model each comes from. Observed data go
            along with "posterior_predictive".

        Raises:
            ValueError: for a model without predictions, for no site in common, for shapes that
                differ, or for a `num_samples` below one.
        """
        probability = {str(name): float(p) for name, p in self.table["probability"].items()}
        return average(rng_key, self.results, probability, predictions, num_samples)

    def __repr__(self) -> str:
        """The table and the notes as text."""
        lines = [_HEADING, self._formatted().to_string(), *self._note_lines()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        notes = "".join(f"<p>{html.escape(line)}</p>" for line in self._note_lines(wrap=False))
        return f"<p><b>{_HEADING}</b></p>{self._formatted().to_html()}{notes}"

    def _formatted(self) -> pd.DataFrame:
        table = self.table.rename_axis(None)
        for name, (_, style) in _SHOWN.items():
            table[name] = [format(value, style) for value in table[name]]
        table.columns = [_SHOWN.get(str(name), (name,))[0] for name in table.columns]
        return table

    def _note_lines(self, *, wrap: bool = True) -> list[str]:
        notes = [f"{name}: {note}" for name, found in self.notes.items() for note in found]
        if not wrap:
            return notes
        return [
            textwrap.fill(note, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
            for note in notes
        ]


# Heading and format of the printed columns; z: no "-0.000".
_SHOWN = {
    "log_evidence": ("log evidence", "z.3f"),
    "se": ("se", ".2g"),
    "log_bayes_factor": ("log BF", "z.3f"),
    "log_bayes_factor_se": ("se", ".2g"),
    "prior": ("prior", ".3f"),
    "probability": ("probability", ".4f"),
    "probability_se": ("se", ".2g"),
}


def compare_evidence(
    models: Mapping[str, Any], prior_weights: Mapping[str, float] | None = None
) -> EvidenceComparison:
    """Compares models of the same data by their evidence.

    The evidence averages the likelihood over the prior, so a Bayes factor depends on the priors of
    the parameters, however many data there are: choose proper ones that you mean.

    Args:
        models: by name, what `OneStepInference.run` returned, the same read from a netCDF file, or
            the inference itself; of either ArviZ line.
        prior_weights: positive prior weight by model, of any sum; equal by default.

    Returns:
        The comparison: its table, its plot, and predictions averaged over the models.

    Raises:
        ValueError: naming the model, if there are fewer than two models, if their observed data
            differ, or for a result of another library, without a finite evidence (refused for
            improper priors, say), or with the verdict "unreliable"; for prior weights that are not
            positive numbers or do not fit the names.

    Example:
        >>> comparison = compare_evidence({"pooled": pooled, "hierarchical": hierarchical})
        >>> comparison.table["probability"]
    """
    found = read_models(models)
    prior = _prior(found, prior_weights)
    log_evidence = np.array([model.log_evidence for model in found])
    se = np.array([model.se for model in found])
    best = int(np.argmax(log_evidence))
    factor_se = np.hypot(se, se[best])
    factor_se[best] = 0.0
    probability, probability_se = model_probabilities(log_evidence, se, prior)
    table = pd.DataFrame(
        {
            "log_evidence": log_evidence,
            "se": se,
            "log_bayes_factor": log_evidence - log_evidence[best],
            "log_bayes_factor_se": factor_se,
            "prior": prior,
            "probability": probability,
            "probability_se": probability_se,
            "verdict": [model.verdict for model in found],
        },
        index=pd.Index([model.name for model in found], name="model"),
    ).sort_values("log_evidence", ascending=False, kind="stable")
    return EvidenceComparison(
        table=table,
        notes={model.name: notes for model in found if (notes := _notes(model))},
        results={model.name: model.result for model in found},
    )


def model_probabilities(
    log_evidence: np.ndarray, se: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior probabilities of models and their standard errors, `(k,)` each.

    Args:
        log_evidence: `(k,)`, finite.
        se: standard errors of `log_evidence`, independent of each other, `(k,)`.
        prior: positive prior weights, `(k,)`.
    """
    log_weight = log_evidence + np.log(prior)
    weight = np.exp(log_weight - log_weight.max())
    probability = weight / weight.sum()
    # Sums over the other models, not differences from the whole: 1 - p of a model that is nearly
    # certain would be rounded to zero.
    others = 1.0 - np.eye(len(probability))
    variance = (others @ probability) ** 2 * se**2 + others @ (probability * se) ** 2
    return probability, probability * np.sqrt(variance)


def _prior(models: list[ModelEvidence], weights: Mapping[str, float] | None) -> np.ndarray:
    names = [model.name for model in models]
    if weights is None:
        return np.full(len(names), 1.0 / len(names))
    given = {str(name): weight for name, weight in dict(weights).items()}
    if set(given) != set(names):
        raise ValueError(f"expected prior_weights for the models {names}; got {list(given)}")
    try:
        values = np.array([float(given[name]) for name in names])
    except (TypeError, ValueError):
        values = np.full(len(names), np.nan)
    if not (np.isfinite(values).all() and (values > 0.0).all()):
        raise ValueError(f"expected positive prior_weights; got {given}")
    return values / values.sum()


def _notes(model: ModelEvidence) -> tuple[str, ...]:
    notes = [model.note] if model.note else []
    if model.verdict != "reliable":
        notes.append(f"The verdict on this run is {model.verdict!r}. {' '.join(model.reasons)}")
    if not model.observed:
        notes.append("No site is observed, so that nothing shows whether the data are the same.")
    return tuple(notes)
