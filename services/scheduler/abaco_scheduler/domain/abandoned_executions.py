"""The abandoned executions of one actor, in 24 bytes each.

An abandoned execution is kept until a person retries it, which may never happen. So only what a
retry needs is kept: the sequence of its message in the log, and the number of its attempts.
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
    """Return an empty column."""
    return array(INTEGER)


@dataclass(slots=True)
class AbandonedExecutions:
    """Three columns of equal length, sorted by ordinal."""

    ordinals: Column = field(default_factory=integers)
    sequences: Column = field(default_factory=integers)
    attempts: Column = field(default_factory=integers)

    def __len__(self) -> int:
        """Return the number of abandoned executions."""
        return len(self.ordinals)

    def __contains__(self, ordinal: int) -> bool:
        """Return whether the execution with this ordinal is abandoned."""
        index = bisect_left(self.ordinals, ordinal)
        return index < len(self.ordinals) and self.ordinals[index] == ordinal

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Iterate over (ordinal, message sequence, attempts), sorted by ordinal."""
        return zip(self.ordinals, self.sequences, self.attempts, strict=True)

    def add(self, ordinal: int, sequence: int, attempts: int) -> None:
        """Add an execution, or replace the one with this ordinal."""
        self.pop(ordinal)
        index = bisect_left(self.ordinals, ordinal)
        self.ordinals.insert(index, ordinal)
        self.sequences.insert(index, sequence)
        self.attempts.insert(index, attempts)

    def pop(self, ordinal: int) -> tuple[int, int] | None:
        """Remove an execution; return (message sequence, attempts), or None if there is none."""
        if ordinal not in self:
            return None
        index = bisect_left(self.ordinals, ordinal)
        del self.ordinals[index]
        return self.sequences.pop(index), self.attempts.pop(index)

    def clear(self) -> None:
        """Remove all."""
        for column in (self.ordinals, self.sequences, self.attempts):
            del column[:]
