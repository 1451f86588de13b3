"""A bar over the rounds of training."""

from __future__ import annotations

import os
from collections.abc import Callable

from tqdm.auto import tqdm

from numpyro_onestep.training import TrainingHistory


class Progress:
    """A bar of `total` rounds, with what the last round found; never shown where `CI` is set."""

    def __init__(self, total: int, *, shown: bool) -> None:
        """See the class."""
        disable = not shown or bool(os.environ.get("CI"))
        self._bar = tqdm(total=total, disable=disable, desc="training", unit="round")

    def __enter__(self) -> Callable[[int, TrainingHistory], None]:
        """What training calls after every round."""
        return self._on_round

    def __exit__(self, *_: object) -> None:
        """Closes the bar, finished or not."""
        self._bar.close()

    def _on_round(self, _: int, history: TrainingHistory) -> None:
        self._bar.set_postfix(
            ess=f"{history.ess_fraction[-1]:.2f}",
            log_evidence=f"{history.log_evidence[-1]:.2f}",
            refresh=False,
        )
        self._bar.update()
