"""A kind of model that NumPyro's documentation teaches, in a small version of our own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Model = Callable[..., None]


@dataclass(frozen=True)
class Kind:
    """One model with generated or typed data.

    Attributes:
        name: of the row.
        pages: what NumPyro's tutorials or examples call the kind.
        model: takes the values of `load()` as keyword arguments.
        load: data, the same at every call.
    """

    name: str
    pages: str
    model: Model
    load: Callable[[], dict[str, Any]]


def generator(seed: int) -> np.random.Generator:
    """Random numbers for the data of one model."""
    return np.random.default_rng(seed)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Probability of a logit."""
    return 1.0 / (1.0 + np.exp(-x))
