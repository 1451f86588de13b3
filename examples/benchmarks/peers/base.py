"""The contract: a posterior and a budget go in, draws, evidence and costs come out.

A new peer is one small file here with a `run` function and a row in `peers.PEERS`. `run` receives
a `Posterior`, a budget and a seed; what it spends is measured around it (`peers.measure`).
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from peers.posterior import Posterior


@dataclass(frozen=True)
class Evidence:
    """Natural log of the evidence; `se` is the method's own standard error, None without one."""

    log_z: float
    se: float | None
    densities: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a run gives back.

    Attributes:
        draws: constrained sites `(chains, n, *event)`; one chain where there are no chains.
        log_weights: of the draws `(n,)`, where they are weighted.
        independent: whether the draws are independent of each other, up to their weights; the
            effective number of others is that of Markov chains. None where neither holds, as for
            the particles of sequential Monte Carlo: their effective number is then not reported.
        densities: evaluations of the log-density (or log-likelihood) without a gradient.
        gradients: evaluations of the log-density with its gradient.
        evidence: from the same run, or a further computation that is timed on its own.
        extra: what else is worth a column, JSON numbers and text.
    """

    draws: dict[str, np.ndarray]
    log_weights: np.ndarray | None = None
    independent: bool | None = False
    densities: int = 0
    gradients: int = 0
    evidence: Evidence | Callable[[], Evidence] | None = None
    extra: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """One method of inference.

    Attributes:
        name: as in the tables.
        run: `(posterior, budget, seed) -> Outcome`, everything after the imports.
        budgets: those that are measured by default, in rising order; draws asked for where
            `asks_draws`, else the size that the method's accuracy hangs on (particles, live
            points).
        headline: those of them that the summary rests on; measured first.
        requires: modules that must be installed.
        asks_draws: whether the budget is a number of posterior draws.
        x64: whether JAX computes in double precision, as the method needs it.
        settings: what is not said by the budget, in a few words.
        install: how to get the modules, where they are not in the `bench` extra.
    """

    name: str
    run: Callable[["Posterior", int, int], Outcome]
    budgets: tuple[int, ...]
    headline: tuple[int, ...]
    requires: tuple[str, ...] = ()
    asks_draws: bool = True
    x64: bool = False
    settings: str = ""
    install: str = ""

    def missing(self) -> str:
        """Why it cannot run here, or ""."""
        lacking = [name for name in self.requires if importlib.util.find_spec(name) is None]
        if not lacking:
            return ""
        how = f" ({self.install})" if self.install else " (the bench extra brings it)"
        return f"{', '.join(lacking)} not installed{how}"
