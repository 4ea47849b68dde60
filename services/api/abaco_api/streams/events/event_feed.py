"""The event feed: one follower of the log per process, whose events all streams share.

It starts with the first subscriber. A process without subscribers decodes no event for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from abaco_api.streams.domain.encoded_event import EncodedEvent, encode_event
from abaco_api.streams.domain.event_ring import EventRing
from abaco_api.streams.domain.selection import Selection
from abaco_jetstream.ports import EventLog
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.names import actor_and_type, tenant_filter

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
STEP_EVENTS = 256
"""Events added at once. Then all streams run, so none that keeps up is overtaken."""

EVERYTHING = Selection()


class EventFeed:
    """Events: old ones from the log, new ones from the ring buffer."""

    def __init__(self, log: EventLog, tenant: str, *, max_events: int, max_bytes: int) -> None:
        """Nothing is followed yet; the limits are those of the ring."""
        self._log = log
        self._tenant = tenant
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._is_started = asyncio.Event()
        self.ring: EventRing | None = None
        self.moved = asyncio.Event()
        self.closed = False

    async def run(self) -> None:
        """Follow the log from the first ``start`` on, without end."""
        await self._is_started.wait()
        head = await self._head()
        self.ring = EventRing(head, max_events=self._max_events, max_bytes=self._max_bytes)
        self._wake()
        everything = [tenant_filter(self._tenant)]
        async with aclosing(self._log.follow(everything, after=head)) as batches:
            async for batch in batches:
                for start in range(0, len(batch.events), STEP_EVENTS):
                    for recorded in batch.events[start : start + STEP_EVENTS]:
                        self.ring.add(encode_event(recorded))
                    self._wake()
                    await asyncio.sleep(0)

    def start(self) -> None:
        """Follow the log from now on, if it is not followed yet."""
        self._is_started.set()

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self._wake()

    async def history(
        self, selection: Selection, *, after: int
    ) -> AsyncGenerator[tuple[Sequence[EncodedEvent], int], None]:
        """Matching events that are in the log now, in batches, and the last sequence of each.

        The last batch ends at the ring's position at the call, or later.

        Raises:
            Unavailable: the log does not answer.
        """
        reached = max(after, self.ring.position if self.ring is not None else 0)
        history = self._log.read(selection.filters(self._tenant), after=after)
        async with aclosing(history) as batches:
            async for batch in batches:
                if batch:
                    yield _selected(batch, selection), batch[-1].sequence
        yield [], reached

    async def items(self, after: int) -> AsyncGenerator[Sequence[EncodedEvent], None]:
        """Every event after a sequence, in order, without end, also through outages of the log."""
        self.start()
        cursor = after
        while True:
            moved, ring = self.moved, self.ring
            if ring is None or (cursor >= ring.floor and cursor >= ring.position):
                await moved.wait()
            elif cursor >= ring.floor:
                found = ring.after(cursor, STEP_EVENTS)
                cursor = found[-1].sequence
                yield found
            else:
                try:
                    async with aclosing(self.history(EVERYTHING, after=cursor)) as batches:
                        async for found, reached in batches:
                            cursor = max(cursor, reached)
                            yield found
                except Unavailable:
                    await asyncio.sleep(PAUSE_SECONDS)

    async def _head(self) -> int:
        while True:
            try:
                last = await self._log.last(tenant_filter(self._tenant))
            except Unavailable as error:
                logger.debug("the event feed waits for the log: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return last.sequence if last is not None else 0

    def _wake(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()


def _selected(batch: Sequence[Recorded], selection: Selection) -> list[EncodedEvent]:
    """The events that match. Events of other types are not encoded."""
    return [
        found
        for recorded in batch
        if selection.may_match(*actor_and_type(recorded.subject))
        and selection.matches(found := encode_event(recorded))
    ]
