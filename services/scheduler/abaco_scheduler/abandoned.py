"""The abandoned executions of one actor, in 24 bytes each.

They stay until a person wants them tried again, which may be never. So of each only what a retry
needs is kept: where its message stands in the log, and how many attempts it had.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Column: TypeAlias = array[int]
else:  # it takes no parameter before Python 3.12
    Column = array

INTEGER = "q"
"""The array type code: 64 bits, signed."""


def integers() -> Column:
    """An empty column."""
    return array(INTEGER)


@dataclass(slots=True)
class Abandoned:
    """Three columns, sorted by ordinal."""

    ordinals: Column = field(default_factory=integers)
    sequences: Column = field(default_factory=integers)
    attempts: Column = field(default_factory=integers)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ordinals)

    def __contains__(self, ordinal: int) -> bool:
        """Whether the execution with this ordinal is abandoned."""
        place = bisect_left(self.ordinals, ordinal)
        return place < len(self.ordinals) and self.ordinals[place] == ordinal

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Ordinal, message sequence and attempts of each."""
        return zip(self.ordinals, self.sequences, self.attempts, strict=True)

    def add(self, ordinal: int, sequence: int, attempts: int) -> None:
        """Add one, or replace the one with this ordinal."""
        self.pop(ordinal)
        place = bisect_left(self.ordinals, ordinal)
        self.ordinals.insert(place, ordinal)
        self.sequences.insert(place, sequence)
        self.attempts.insert(place, attempts)

    def pop(self, ordinal: int) -> tuple[int, int] | None:
        """Remove one; its message sequence and attempts, or None if it is not there."""
        if ordinal not in self:
            return None
        place = bisect_left(self.ordinals, ordinal)
        del self.ordinals[place]
        return self.sequences.pop(place), self.attempts.pop(place)

    def clear(self) -> None:
        """Remove all."""
        for column in (self.ordinals, self.sequences, self.attempts):
            del column[:]
