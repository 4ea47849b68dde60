"""The event feeds: one follower of the log per process, whose events all streams share.

It starts with the first subscriber. A process without subscribers decodes no event for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, contextmanager
from weakref import WeakValueDictionary

from abaco_api.streams.domain.encoded_event import EncodedEvent, encode_event
from abaco_api.streams.domain.event_ring import EventRing
from abaco_api.streams.domain.selection import Selection
from abaco_jetstream.ports import EventLog
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.names import actor_and_type, all_events_filter

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
STEP_EVENTS = 256
"""Events added at once. Then all streams run, so none that keeps up is overtaken."""

EVERYTHING = Selection()


class EventFeeds:
    """The feeds of all tenants, which one follower of the log fills.

    A tenant has a ring while somebody uses its feed. The rings share the limits equally, so that
    no tenant displaces the events of another.
    """

    def __init__(self, log: EventLog, *, max_events: int, max_bytes: int) -> None:
        """Nothing is followed yet; the limits are those of all rings together."""
        self.log = log
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._is_started = asyncio.Event()
        self._position: int | None = None
        self._feeds: WeakValueDictionary[str, EventFeed] = WeakValueDictionary()
        self._used: dict[str, EventFeed] = {}
        self.closed = False

    def of(self, tenant: str) -> "EventFeed":
        """The feed of a tenant; the same one for all that hold it."""
        feed = self._feeds.get(tenant)
        if feed is None:
            feed = self._feeds[tenant] = EventFeed(self, tenant)
        return feed

    async def run(self) -> None:
        """Follow the log from the first use on, without end."""
        await self._is_started.wait()
        self._position = await self._head()
        self._share()
        everything = [all_events_filter()]
        async with aclosing(self.log.follow(everything, after=self._position)) as batches:
            async for batch in batches:
                for start in range(0, len(batch.events), STEP_EVENTS):
                    self._add(batch.events[start : start + STEP_EVENTS])
                    await asyncio.sleep(0)

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        for feed in self._used.values():
            feed.wake()

    def take(self, tenant: str, feed: "EventFeed") -> None:
        """Fill a feed from now on; the log is followed if it is not yet."""
        self._used[tenant] = feed
        self._is_started.set()
        self._share()

    def leave(self, tenant: str) -> None:
        """Fill the feed of a tenant no more."""
        del self._used[tenant]
        self._share()

    def _share(self) -> None:
        """Give each feed its ring, and an equal share of the limits."""
        if self._position is None or not self._used:
            return
        most = max(1, self._max_events // len(self._used))
        most_bytes = self._max_bytes // len(self._used)
        for feed in self._used.values():
            if feed.ring is None:
                feed.ring = EventRing(self._position, max_events=most, max_bytes=most_bytes)
                feed.wake()
            else:
                feed.ring.limit(most, most_bytes)

    def _add(self, events: Sequence[Recorded]) -> None:
        moved = set()
        for recorded in events:
            self._position = recorded.sequence
            feed = self._used.get(recorded.tenant)
            if feed is not None and feed.ring is not None:
                feed.ring.add(encode_event(recorded))
                moved.add(feed)
        for feed in moved:
            feed.wake()

    async def _head(self) -> int:
        while True:
            try:
                last = await self.log.last(all_events_filter())
            except Unavailable as error:
                logger.debug("the event feed waits for the log: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return last.sequence if last is not None else 0


class EventFeed:
    """The events of one tenant: old ones from the log, new ones from the ring buffer."""

    def __init__(self, feeds: EventFeeds, tenant: str) -> None:
        """There is no ring before the first use."""
        self._feeds = feeds
        self._tenant = tenant
        self._users = 0
        self.ring: EventRing | None = None
        self.moved = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether the process stops."""
        return self._feeds.closed

    @contextmanager
    def use(self) -> Generator[None, None, None]:
        """Fill the ring while inside."""
        self._users += 1
        if self._users == 1:
            self._feeds.take(self._tenant, self)
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._feeds.leave(self._tenant)
                self.ring = None

    def wake(self) -> None:
        """Wake all that wait for an event, or for the end."""
        self.moved.set()
        self.moved = asyncio.Event()

    async def history(
        self, selection: Selection, *, after: int
    ) -> AsyncGenerator[tuple[Sequence[EncodedEvent], int], None]:
        """Matching events that are in the log now, in batches, and the last sequence of each.

        The last batch ends at the ring's position at the call, or later.

        Raises:
            Unavailable: the log does not answer.
        """
        reached = max(after, self.ring.position if self.ring is not None else 0)
        history = self._feeds.log.read(selection.filters(self._tenant), after=after)
        async with aclosing(history) as batches:
            async for batch in batches:
                if batch:
                    yield _selected(batch, selection), batch[-1].sequence
        yield [], reached

    async def items(self, after: int) -> AsyncGenerator[Sequence[EncodedEvent], None]:
        """Every event after a sequence, in order, without end, also through outages of the log."""
        with self.use():
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


def _selected(batch: Sequence[Recorded], selection: Selection) -> list[EncodedEvent]:
    """The events that match. Events of other types are not encoded."""
    return [
        found
        for recorded in batch
        if selection.may_match(*actor_and_type(recorded.subject))
        and selection.matches(found := encode_event(recorded))
    ]
