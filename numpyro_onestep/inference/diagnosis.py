"""What is wrong with a run, where, and what to do: in plain sentences."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator

import numpy as np

from numpyro_onestep.diagnostics.rules.base import percent
from numpyro_onestep.importance import scaled_weights
from numpyro_onestep.inference.run import Run

_WIDTH = 88
# Draws whose place is looked at: the largest weights.
_NUM_LARGEST = 20
# Shift of their mean, in posterior standard deviations, from which on a site is named, and how many
# are.
_SHIFT, _NUM_SITES = 1.0, 3

_USE = {
    "reliable": "Use the posterior draws and the evidence as they are.",
    "usable_with_weights": (
        "Use the weighted draws (`get_weighted_samples`, `weighted_summary`), within what the"
        " findings say."
    ),
    "rescued": (
        "Use the posterior draws (`get_samples`), which are NUTS's, and the evidence with its"
        " error; not the weighted draws."
    ),
    "unreliable": "Use neither the draws nor the evidence.",
}
_FALLBACK = ' `fallback="nuts"` lets NUTS take over.'


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Sections of sentences; prints as text.

    Attributes:
        sections: pairs of a heading and its sentences.
    """

    sections: tuple[tuple[str, tuple[str, ...]], ...]

    def __str__(self) -> str:
        """One paragraph per sentence, indented under its heading."""
        lines = []
        for heading, sentences in self.sections:
            lines.append(heading)
            for sentence in sentences:
                lines.append(
                    textwrap.fill(sentence, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
                )
        return "\n".join(lines)

    __repr__ = __str__


def diagnose(run: Run, *, had_fallback: bool) -> Diagnosis:
    """Everything that the checks of a finished run have to say, and where its weights go wrong.

    `had_fallback` says whether the run could fall back on NUTS: then it is no advice any more.
    """
    label = run.verdict.label
    use = _USE[label]
    if label == "unreliable" and not had_fallback and _has_one_posterior_to_sample(run):
        use += _FALLBACK
    return Diagnosis(
        (
            (f"verdict: {label.replace('_', ' ')}", (use,)),
            ("findings, and what to do", run.verdict.reasons),
            ("where the largest weights are", tuple(_places(run))),
            ("how far the checks could see", tuple(_reach(run))),
            ("what it took", tuple(_budget(run))),
        )
    )


def _has_one_posterior_to_sample(run: Run) -> bool:
    """Whether NUTS would be tried: not for separate modes, nor where training diverged."""
    return len(run.fit.trained.components) == 1 and not run.fit.history.diverged


def _places(run: Run) -> Iterator[str]:
    """Which sites the draws of the largest weights differ in from the posterior."""
    weight, _ = scaled_weights(run.draws.log_weight, run.draws.sign)
    if not weight.sum() > 0.0:
        yield "No draw has a weight."
        return
    share = np.maximum(weight, 0.0) / np.maximum(weight, 0.0).sum()
    largest = np.argsort(-share)[:_NUM_LARGEST]
    held = share[largest].sum()
    yield (
        f"The {len(largest)} largest of {len(share)} weights hold {percent(held)} of the total;"
        f" {percent(len(largest) / len(share))} would be even."
    )
    x = np.asarray(run.draws.x, np.float64)
    known = (share > 0.0) & np.isfinite(x).all(axis=1)
    mean = share[known] @ x[known]
    sd = np.sqrt(share[known] @ (x[known] - mean) ** 2)
    there = [i for i in largest if known[i]]
    shift = (x[there].mean(axis=0) - mean) / np.where(sd > 0.0, sd, np.inf)
    named = [i for i in np.argsort(-np.abs(shift))[:_NUM_SITES] if abs(shift[i]) >= _SHIFT]
    for i in named:
        side = "low" if shift[i] < 0.0 else "high"
        yield (
            f"Those draws lie where {_coordinate(run, int(i))} is {side}: {shift[i]:+.1f} posterior"
            " standard deviations in unconstrained coordinates. The sampler draws too seldom there."
        )
    if not named:
        yield (
            "Those draws are nowhere in particular: none of their coordinates is"
            f" {_SHIFT:.0f} standard deviation from its mean."
        )


def _coordinate(run: Run, place: int) -> str:
    """Name of an unconstrained coordinate: the site, and where in it."""
    target = run.fit.target
    name = target.site_at(place)
    shape = target.program.unconstrained_shapes[name]
    index = np.unravel_index(place - target.site_slices[name].start, shape)
    return f"`{name}[{', '.join(map(str, index))}]`" if shape else f"`{name}`"


def _reach(run: Run) -> Iterator[str]:
    checks, trained = run.checks, run.fit.trained
    num = len(trained.components)
    modes = "one mode" if num == 1 else f"{num} separate modes, with a sampler each"
    missed = checks.missed_share or 0.0
    yield (
        f"Exploration found {modes}; {percent(missed)} of the evidence in what it saw is out of"
        " the reach of the draws."
    )
    yield f"The map folds over at {percent(checks.folded_fraction)} of the draws."
    moved = checks.coverage
    if moved is None:
        yield "No points could be moved along the posterior: no draw has a usable weight."
    else:
        yield (
            f"{moved.num_moved} points moved along the posterior: {percent(moved.beyond_share)}"
            f" went beyond all draws ({percent(moved.beyond_expected)} expected), at most"
            f" {percent(max(moved.excess_share, 0.0))} of the posterior is missing as far as they"
            f" got, and a missing part of {percent(moved.detectable_share)} would have been"
            f" noticed. {percent(moved.failed_share)} have no known weight."
        )
    few = checks.few_step
    if few is not None:
        yield (
            f"Log evidence {checks.one_step.log_evidence_known:.3f} in the steps of the run,"
            f" {few.log_evidence_known:.3f} in twice as many (Pareto k-hat"
            f" {checks.few_step_pareto_k:.2f})."
        )


def _budget(run: Run) -> Iterator[str]:
    history = run.fit.history
    ended = f"ended early ({history.stopped})" if history.stopped else "ran to its end"
    shares = history.ess_fraction
    course = (
        f"; effective draws went from {percent(shares[0])} to {percent(shares[-1])} in"
        f" {len(shares)} rounds"
        if shares
        else ""
    )
    yield f"Training {ended}{course}."
    if shares and not (history.losses or history.stopped or history.diverged):
        yield "The draws were good enough before it: the network was left as it was."
    trained = run.fit.trained
    if trained.conditional is not None:
        target = run.fit.target
        slices = trained.coordinates(target).site_slices
        names = [target.site_at(slices[name].start) for name in trained.conditional.sites]
        sites = ", ".join(f"'{name}'" for name in names)
        yield (
            f"The sampler works in coordinates in which the values of {sites} are standardised"
            " given all others."
        )
    each = trained.gradients_each
    yield (
        f"{each * history.num_gradients:,} gradients of the log-density, {history.seconds:.0f}"
        " seconds until the first draw."
    )
    if run.rescue is not None:
        yield f"Of those gradients {each * run.rescue.checks.num_gradients:,} are NUTS's."
