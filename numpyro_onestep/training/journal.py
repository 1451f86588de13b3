"""What a training has done so far, in a file: one that is killed goes on from there.

A training is a function of its key. The parts that are done (exploration, components) and the state
after the last round are all that it takes to end where it would have ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from numpyro_onestep import storage

# Seconds from one write to the next: each one writes everything anew.
SECONDS_BETWEEN = 30.0

_Value = TypeVar("_Value")


class CheckpointFile:
    """Entries by name, which go to a file from time to time.

    As a context it writes what there is when an error, Ctrl-C included, ends it.

    Args:
        path: of the file.
        about: entries of its header.
        entries: what it holds already.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        about: Mapping[str, str],
        entries: Mapping[str, Any],
    ) -> None:
        """See the class."""
        self.entries = dict(entries)
        self._path = path
        self._about = dict(about)
        self._written = time.perf_counter()

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        """Writes what there is after an error."""
        if kind is not None:
            self.write()

    def write_if_due(self) -> None:
        """Writes unless that was done a short while ago."""
        if time.perf_counter() - self._written >= SECONDS_BETWEEN:
            self.write()

    def write(self) -> None:
        """Writes all entries in one step; warns where the file cannot be written."""
        if not self.entries:
            return
        try:
            storage.write(self._path, self.entries, self._about)
        except (OSError, storage.UnknownValue) as error:
            # A full disk, a method of the user's own: the run is worth more than its checkpoint.
            warnings.warn(f"the checkpoint could not be written: {error}", stacklevel=2)
        self._written = time.perf_counter()

    def remove(self) -> None:
        """Removes the file, whose run has come to its end."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._path)


@dataclasses.dataclass(frozen=True)
class Journal:
    """What a training notes and looks up; nothing at all without a file.

    Attributes:
        file: where entries are.
        place: that the names of entries begin with.
    """

    file: CheckpointFile | None = None
    place: str = ""

    def within(self, name: str) -> Journal:
        """The journal of one part."""
        return Journal(self.file, f"{self.place}{name}/")

    def recall(self, name: str) -> Any | None:
        """The entry of this name; None where there is none."""
        return None if self.file is None else self.file.entries.get(self.place + name)

    def note(self, name: str, value: Any) -> None:
        """Keeps the value, which nobody may change any more, in place of an older one."""
        if self.file is not None:
            self.file.entries[self.place + name] = value
            self.file.write_if_due()

    def once(
        self, name: str, make: Callable[[], _Value], is_done: Callable[[_Value], bool]
    ) -> _Value:
        """The entry of this name, or what `make` gives: noted if done, in place of its parts."""
        found = self.recall(name)
        if found is not None:
            return found
        made = make()
        if self.file is not None and is_done(made):
            for part in [e for e in self.file.entries if e.startswith(f"{self.place}{name}/")]:
                del self.file.entries[part]
            self.note(name, made)
        return made


NO_JOURNAL = Journal()
"""For a training that leaves nothing behind."""
