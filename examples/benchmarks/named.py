"""Things in a list by their names."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Named(Protocol):
    """What has a name."""

    @property
    def name(self) -> str:
        """By which it is found."""


T = TypeVar("T", bound=Named)


def named(things: Iterable[T], name: str) -> T:
    """The one called `name`.

    Raises:
        ValueError: there is none.
    """
    known = {thing.name: thing for thing in things}
    if name not in known:
        raise ValueError(f"expected one of {', '.join(known)}; got {name!r}")
    return known[name]
