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
