"""Settings of a training run."""

from __future__ import annotations

import dataclasses

from numpyro_onestep.objectives import (
    Objective,
    PathJeffreys,
    StateConsistency,
    TargetScoreMatching,
)


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How the sampler is trained; the defaults are for posteriors of 2 to 100 dimensions.

    Attributes:
        width: hidden units per block of the network.
        num_blocks: blocks of the network per step.
        objectives: pairs of a weight and an objective, added up.
        num_starts: starting points for the Gaussian fit; the best fit is used, the others bear
            witness of regions that the sampler might miss.
        num_points: draws per round, each moved by MCMC.
        num_moves: MALA transitions per point and round.
        num_buffered: rounds whose points are kept for training.
        num_updates: optimiser steps per round.
        batch_size: draws, and moved points, per optimiser step.
        learning_rate: of Adam.
        num_annealing: last rounds, over which the learning rate falls to a thousandth of itself.
        ema: decay of the moving average of the parameters, which is the sampler in use.
        max_rounds: rounds before the last ones at the most.
        target_ess: share of effective draws (0 to 1) beyond which training ends.
        patience: rounds without a gain in that share after which training ends.
    """

    width: int = 64
    num_blocks: int = 3
    objectives: tuple[tuple[float, Objective], ...] = (
        (1.0, PathJeffreys()),
        (0.1, TargetScoreMatching()),
        (0.1, StateConsistency()),
    )
    num_starts: int = 4
    num_points: int = 2000
    num_moves: int = 5
    num_buffered: int = 3
    num_updates: int = 200
    batch_size: int = 64
    learning_rate: float = 2e-3
    num_annealing: int = 3
    ema: float = 0.99
    max_rounds: int = 12
    target_ess: float = 0.95
    patience: int = 3

    def __post_init__(self) -> None:
        """Refuses sizes and shares that make no sense."""
        for name in (
            "width",
            "num_blocks",
            "num_starts",
            "num_points",
            "num_moves",
            "num_buffered",
            "num_updates",
            "batch_size",
            "max_rounds",
            "num_annealing",
            "patience",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"expected {name} to be a positive int; got {value!r}")
        if not 0.0 < self.target_ess <= 1.0:
            raise ValueError(f"expected target_ess in (0, 1]; got {self.target_ess!r}")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"expected ema in [0, 1); got {self.ema!r}")
        if not self.learning_rate > 0.0:
            raise ValueError(f"expected a positive learning_rate; got {self.learning_rate!r}")
