"""The feed: one follower of the log a process, whose events all streams share.

It begins when somebody wants it for the first time; a process that nobody listens to does not
decode a single event for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from abaco_api.streams.domain.encoded_event import Item, item
from abaco_api.streams.domain.event_ring import Ring
from abaco_api.streams.domain.selection import Selection
from abaco_jetstream.ports import EventLog
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.subjects import actor_and_type, tenant_filter

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
STEP_EVENTS = 256
"""Between two steps every stream gets its turn: nobody who keeps up can fall out of the ring."""

EVERYTHING = Selection()


class Feed:
    """History from the log, life from the ring."""

    def __init__(self, log: EventLog, tenant: str, *, max_events: int, max_bytes: int) -> None:
        """Nothing is followed yet; the limits are those of the ring."""
        self._log = log
        self._tenant = tenant
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._wanted = asyncio.Event()
        self.ring: Ring | None = None
        self.moved = asyncio.Event()
        self.closed = False

    async def run(self) -> None:
        """Follow the log from the moment that somebody wants it, without end."""
        await self._wanted.wait()
        head = await self._head()
        self.ring = Ring(head, max_events=self._max_events, max_bytes=self._max_bytes)
        self._wake()
        everything = [tenant_filter(self._tenant)]
        async with aclosing(self._log.follow(everything, after=head)) as batches:
            async for batch in batches:
                for start in range(0, len(batch.events), STEP_EVENTS):
                    for recorded in batch.events[start : start + STEP_EVENTS]:
                        self.ring.add(item(recorded))
                    self._wake()
                    await asyncio.sleep(0)

    def want(self) -> None:
        """Have the log followed from now on."""
        self._wanted.set()

    def close(self) -> None:
        """Tell all streams to end."""
        self.closed = True
        self._wake()

    async def history(
        self, selection: Selection, *, after: int
    ) -> AsyncGenerator[tuple[Sequence[Item], int], None]:
        """Selected events that are in the log now, in batches, and how far each batch reaches.

        The last batch reaches at least to where the ring was at the call.

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

    async def items(self, after: int) -> AsyncGenerator[Sequence[Item], None]:
        """Every event behind ``after``, in order, without end, through all outages of the log."""
        self.want()
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
                logger.debug("the feed waits: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return last.sequence if last is not None else 0

    def _wake(self) -> None:
        self.moved.set()
        self.moved = asyncio.Event()


def _selected(batch: Sequence[Recorded], selection: Selection) -> list[Item]:
    """The items that are wanted; those of other types are not even encoded."""
    return [
        found
        for recorded in batch
        if selection.may_take(*actor_and_type(recorded.subject))
        and selection.takes(found := item(recorded))
    ]
