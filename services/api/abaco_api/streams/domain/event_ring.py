"""The ring buffer: the latest events of the log, encoded, shared by all streams.

A reader is a cursor, the sequence of the last event that it has sent. The ring is complete after
its ``floor``: a cursor at or above the floor misses nothing here, one below it must read the log.
So a slow reader costs nothing but its cursor.
"""

from bisect import bisect_right
from collections.abc import Sequence

from abaco_api.streams.domain.encoded_event import EncodedEvent
from abaco_proto.envelope import EPOCH
from abaco_proto.events import Event

SLACK = 1024
"""How many empty slots may be in front before they are removed, all at once."""

GONE = EncodedEvent(
    sequence=0,
    type="",
    actor_id="",
    time=EPOCH,
    id="",
    correlation_id="",
    hops=0,
    principal=None,
    event=Event(),
    frame=b"",
)


class EventRing:
    """At most ``max_events`` events of about ``max_bytes`` together, all after ``floor``."""

    def __init__(self, floor: int, *, max_events: int, max_bytes: int) -> None:
        self.floor = floor
        self.position = floor
        self.size = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._items: list[EncodedEvent] = []
        self._sequences: list[int] = []
        self._begin = 0

    def __len__(self) -> int:
        """How many events are in it."""
        return len(self._items) - self._begin

    def add(self, item: EncodedEvent) -> None:
        """Add the next event, and remove the oldest ones beyond the limits."""
        self._items.append(item)
        self._sequences.append(item.sequence)
        self.position = item.sequence
        self.size += item.size
        self._trim()

    def _trim(self) -> None:
        while len(self) > self._max_events or (self.size > self._max_bytes and len(self) > 1):
            oldest = self._items[self._begin]
            self.floor, self.size = oldest.sequence, self.size - oldest.size
            self._items[self._begin] = GONE
            self._begin += 1
        if self._begin > SLACK:
            del self._items[: self._begin]
            del self._sequences[: self._begin]
            self._begin = 0

    def limit(self, max_events: int, max_bytes: int) -> None:
        """Replace the limits, and remove the oldest events beyond them."""
        self._max_events, self._max_bytes = max_events, max_bytes
        self._trim()

    def after(self, cursor: int, limit: int) -> Sequence[EncodedEvent]:
        """At most ``limit`` events after a cursor that is not below the floor."""
        assert cursor >= self.floor
        start = bisect_right(self._sequences, cursor, lo=self._begin)
        return self._items[start : start + limit]
