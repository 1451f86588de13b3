"""Rules on the course of training and on the weights of the draws taken by themselves."""

from collections.abc import Callable

from ...importance import pareto_k_threshold
from .. import limits
from ..checks import Checks
from .base import MORE_TIME, NOTE, UNRELIABLE, USABLE, Rule, percent


def _diverged(checks: Checks) -> str:
    return (
        "Training diverged: it ran off, or no draw had a density. The posterior may be improper"
        " (check that every parameter has a proper prior), or its density falls to zero in a jump,"
        " where gradients lead nowhere."
    )


def _stopped(checks: Checks) -> str:
    return (
        f"Training was stopped early ({checks.stopped_early}): the best sampler so far was kept."
        " Let it run to its end before you rely on it."
    )


def _mostly_unknown(checks: Checks) -> str:
    return (
        f"Only {percent(checks.finite_share)} of the {checks.num_draws} draws have a known weight;"
        " at the others the log-density is NaN or infinite. Find the cause in the model (an"
        " overflow, the logarithm of zero) or run in double precision."
    )


def _some_unknown(checks: Checks) -> str:
    return (
        f"{percent(1 - checks.finite_share)} of the {checks.num_draws} draws have an unknown"
        " weight, because the log-density is NaN or infinite there. The posterior chains leave them"
        " out, which is right only where the posterior has no mass; no evidence and no weighted"
        " summary is reported."
    )


def _undefined(checks: Checks) -> str:
    return (
        f"The log-density is NaN at {percent(checks.undefined_share)} of the prior's draws: the"
        " search for the posterior passes them over, as NUTS does. A parameter that must be"
        " positive, such as a scale, needs a prior that is."
    )


def _imprecise(checks: Checks) -> str:
    return (
        f"{percent(checks.imprecise_share)} of the weight of the draws is a matter of rounding: the"
        " log-density there is nats off in single precision, where large terms cancel, as"
        " log-gamma functions of a large concentration do. Call `numpyro.enable_x64()` before"
        " anything else, and run again."
    )


def _in_double(checks: Checks) -> str:
    return (
        "In single precision the log-density is nats off in places that the prior allows, where"
        " large terms cancel: it was computed in double precision, the sampler in single precision."
    )


def _undefined_sites(checks: Checks) -> str:
    shares = [f"'{name}' in {percent(x)}" for name, x in checks.undefined_sites.items()]
    return (
        f"Deterministic sites are NaN where the log-density is a number: {', '.join(shares)} of the"
        " draws. Summaries and predictions from those sites are not to be had; look for a"
        " difference, a root or a factorisation that fails there."
    )


def _ess(checks: Checks) -> str:
    return (
        f"The {checks.num_draws} draws are worth {checks.ess_count:.0f} independent ones"
        f" ({percent(checks.ess_fraction)})."
    )


def _ess_tiny(checks: Checks) -> str:
    return (
        f"{_ess(checks)} Any summary needs {limits.MIN_USABLE_ESS} at least. Take more draws if"
        f" there were few. {MORE_TIME}"
    )


def _ess_small(checks: Checks) -> str:
    return f"{_ess(checks)} Take more draws until they are worth {limits.MIN_RELIABLE_ESS}."


def _ess_fraction(checks: Checks) -> str:
    return f"{_ess(checks)} The posterior chains repeat draws too often: use the weighted draws."


def _tails_worth_less(least: float) -> Callable[[Checks], bool]:
    # Where all draws together are worth less, that is the reason.
    return lambda c: c.tail_ess is not None and c.ess_count >= least and not c.tail_ess >= least


def _tail_ess(checks: Checks) -> str:
    return (
        f"In a tail of the site '{checks.tail_site}' the draws are worth"
        f" {checks.tail_ess:.0f} independent ones, though {checks.ess_count:.0f} altogether: a few"
        " of large weight lie there, which the posterior chains repeat. Take more draws until those"
        f" are worth {limits.MIN_RELIABLE_ESS}, before 90 % intervals count."
    )


def _heavy_tail(checks: Checks) -> str:
    return (
        f"The weights have too heavy a tail: Pareto k-hat is {checks.pareto_k:.2f}, above"
        f" {pareto_k_threshold(checks.num_draws):.2f} for {checks.num_draws} draws. A few draws"
        " carry every estimate, and standard errors are too small by an unknown factor."
        f" {MORE_TIME}"
    )


def _rather_heavy_tail(checks: Checks) -> str:
    if checks.pareto_k > pareto_k_threshold(checks.num_draws):
        return (
            f"The weights have a heavy tail: Pareto k-hat is {checks.pareto_k:.2f}. It holds only"
            f" {percent(checks.tail_excess)} of the weight, so that the evidence and probabilities"
            " can be off by little, but means and standard deviations of quantities that are"
            " extreme there may be. Use the weighted draws, quantiles rather than moments."
        )
    return (
        f"The weights have a rather heavy tail: Pareto k-hat is {checks.pareto_k:.2f}, where errors"
        f" stop shrinking as they should from {limits.MAX_RELIABLE_K} on. Use the weighted draws,"
        " and take the standard error of the evidence as it is: it allows for the tail."
    )


def _harmless_tail(checks: Checks) -> str:
    return (
        f"Pareto k-hat is {checks.pareto_k:.2f}, but the tail that it describes holds only"
        f" {percent(checks.tail_excess)} of the weight: no probability and no evidence hangs on it."
    )


def _many_folds(checks: Checks) -> str:
    return (
        "The sampler's map folds over (it turns space inside out) at"
        f" {percent(checks.folded_fraction)} of the {checks.num_draws} draws: those have negative"
        f" weights, which no equally weighted sample can hold, and estimates cancel. {MORE_TIME}"
    )


def _few_folds(checks: Checks) -> str:
    return (
        "The sampler's map folds over (it turns space inside out) at"
        f" {percent(checks.folded_fraction)} of the {checks.num_draws} draws. Signed weights"
        " account for it, the posterior chains leave those draws out: use the weighted draws."
    )


TRAINING_RULES = (
    Rule("training", UNRELIABLE, lambda c: c.training_diverged, _diverged),
    Rule("stopped", USABLE, lambda c: c.stopped_early != "", _stopped),
)

WEIGHT_RULES = (
    Rule(
        "finite",
        UNRELIABLE,
        lambda c: not c.finite_share >= limits.MIN_USABLE_FINITE,
        _mostly_unknown,
    ),
    Rule("finite", USABLE, lambda c: not c.finite_share >= 1.0, _some_unknown),
    Rule("undefined", NOTE, lambda c: c.undefined_share >= limits.MIN_UNDEFINED, _undefined),
    Rule(
        "precision",
        UNRELIABLE,
        lambda c: not c.imprecise_share <= limits.MAX_USABLE_IMPRECISE,
        _imprecise,
    ),
    Rule(
        "precision",
        USABLE,
        lambda c: not c.imprecise_share <= limits.MAX_RELIABLE_IMPRECISE,
        _imprecise,
    ),
    Rule("precision", NOTE, lambda c: c.in_double, _in_double),
    Rule("undefined sites", NOTE, lambda c: bool(c.undefined_sites), _undefined_sites),
    Rule("ess", UNRELIABLE, lambda c: not c.ess_count >= limits.MIN_USABLE_ESS, _ess_tiny),
    Rule("ess", USABLE, lambda c: not c.ess_count >= limits.MIN_RELIABLE_ESS, _ess_small),
    Rule(
        "ess",
        USABLE,
        lambda c: not c.ess_fraction >= limits.MIN_RELIABLE_FRACTION,
        _ess_fraction,
    ),
    Rule("tail ess", UNRELIABLE, _tails_worth_less(limits.MIN_USABLE_ESS), _tail_ess),
    Rule("tail ess", USABLE, _tails_worth_less(limits.MIN_RELIABLE_ESS), _tail_ess),
    Rule(
        "pareto k",
        UNRELIABLE,
        lambda c: not (c.tail_is_small or c.pareto_k <= pareto_k_threshold(c.num_draws)),
        _heavy_tail,
    ),
    Rule(
        "pareto k",
        USABLE,
        lambda c: not (c.tail_is_negligible or c.pareto_k < limits.MAX_RELIABLE_K),
        _rather_heavy_tail,
    ),
    Rule(
        "pareto k",
        NOTE,
        lambda c: c.tail_is_negligible and not c.pareto_k < limits.MAX_RELIABLE_K,
        _harmless_tail,
    ),
    Rule(
        "folds",
        UNRELIABLE,
        lambda c: not c.folded_fraction <= limits.MAX_USABLE_FOLDED,
        _many_folds,
    ),
    Rule(
        "folds", USABLE, lambda c: not c.folded_fraction <= limits.MAX_RELIABLE_FOLDED, _few_folds
    ),
)
