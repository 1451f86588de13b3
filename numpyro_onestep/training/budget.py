"""How long a training may take."""

from __future__ import annotations

import dataclasses
import math
import time


@dataclasses.dataclass(frozen=True)
class Budget:
    """A deadline, and what must be done before it once training has ended.

    Attributes:
        deadline: of `time.perf_counter`.
        num_after: draws that come after training, and what takes as long as so many.
    """

    deadline: float = math.inf
    num_after: int = 0

    def is_spent(self, seconds_per_draw: float = 0.0, seconds_per_round: float = 0.0) -> bool:
        """Whether training must end: another round, and what comes after, would take too long."""
        needed = seconds_per_round + self.num_after * seconds_per_draw
        return time.perf_counter() + needed > self.deadline


@dataclasses.dataclass
class Pace:
    """Seconds per draw and per round, as long as the quickest one took."""

    _first: tuple[float, float] = (0.0, 0.0)
    _later: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def add(self, num_draws: int, drawing: float, num_gradients: int, whole: float) -> None:
        """A round in which so many draws and gradients took so many seconds."""
        if self._first == (0.0, 0.0):
            # It waited for its programs: an upper bound for the whole, and as much per gradient.
            self._first = whole / num_gradients, whole
        else:
            self._later.append((drawing / num_draws, whole))

    @property
    def known(self) -> tuple[float, float]:
        """Nothing, before the first round has ended."""
        if not self._later:
            return self._first
        return min(s[0] for s in self._later), min(s[1] for s in self._later)
