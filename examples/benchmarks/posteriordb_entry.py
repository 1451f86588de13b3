"""What an entry of posteriordb is, and the sites without a prior that many of its models have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

Data = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One posterior of the database.

    Attributes:
        name: of the posterior there.
        model: takes the values of `prepare(data)` as keyword arguments; its sites have the names
            of the reference draws.
        prepare: arguments of the model from the data of the database.
    """

    name: str
    model: Callable[..., None]
    prepare: Callable[[Data], Data]


def flat(name: str, *shape: int) -> jax.Array:
    """A site on the real line without a prior: (*shape,)."""
    return numpyro.sample(name, dist.ImproperUniform(constraints.real, (), shape))


def flat_positive(name: str) -> jax.Array:
    """A site on the positive numbers without a prior: ()."""
    return numpyro.sample(name, dist.ImproperUniform(constraints.positive, (), ()))
