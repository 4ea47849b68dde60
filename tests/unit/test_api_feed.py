"""The ring and the feed over a log in memory: what is complete from where, and what is bounded."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import msgspec
import pytest

import builders as b
from abaco_api.streams.domain.encoded_event import EncodedEvent, encode_event
from abaco_api.streams.domain.event_result import data_of
from abaco_api.streams.domain.event_ring import SLACK, EventRing
from abaco_api.streams.domain.selection import Selection, type_matches
from abaco_api.streams.events.event_feed import EventFeed, EventFeeds
from deadlines import LIMIT_SECONDS
from fakes import InMemoryEventLog


def items(count: int, message: str = "x") -> list[EncodedEvent]:
    events = [b.received(n, message=message) for n in range(count)]
    return [encode_event(recorded) for recorded in b.history(*events)]


def sequences(found: object) -> list[int]:
    assert isinstance(found, list)
    return [one.sequence for one in found]


def test_a_ring_keeps_the_latest_and_knows_its_floor() -> None:
    ring = EventRing(0, max_events=3, max_bytes=10**9)
    for one in items(5):
        ring.add(one)
    assert (ring.floor, ring.position, len(ring)) == (2, 5, 3)
    assert sequences(ring.after(2, 10)) == [3, 4, 5]
    assert sequences(ring.after(3, 1)) == [4]
    assert sequences(ring.after(5, 10)) == []
    assert sequences(ring.after(9, 10)) == []


def test_a_ring_is_bounded_in_bytes_and_keeps_at_least_the_last() -> None:
    one = items(1, "x" * 1000)[0].size
    ring = EventRing(0, max_events=1000, max_bytes=3 * one + 50)
    for big in items(10, "x" * 1000):
        ring.add(big)
    assert (len(ring), ring.floor) == (3, 7)
    tiny = EventRing(0, max_events=10, max_bytes=1)
    for big in items(2):
        tiny.add(big)
    assert sequences(tiny.after(1, 10)) == [2]


def test_a_ring_lets_go_of_what_it_let_go() -> None:
    ring = EventRing(0, max_events=2, max_bytes=10**9)
    for one in items(3 * SLACK):
        ring.add(one)
    assert len(ring._items) <= SLACK + 2
    assert sum(one.sequence > 0 for one in ring._items) == 2
    assert ring.size == sum(one.size for one in ring.after(ring.floor, 9))


@asynccontextmanager
async def following(
    log: InMemoryEventLog, max_events: int = 1000
) -> AsyncGenerator[EventFeed, None]:
    feeds = EventFeeds(log, max_events=max_events, max_bytes=10**9)
    feed, task = feeds.of("default"), asyncio.create_task(feeds.run())
    try:
        with feed.use():
            while feed.ring is None:
                await asyncio.sleep(0)
            yield feed
    finally:
        task.cancel()


async def append(log: InMemoryEventLog, count: int, start: int = 0) -> None:
    for n in range(start, start + count):
        await log.append(b.envelope_of(b.received(n)))


async def test_history_reaches_to_where_the_ring_was_and_no_further() -> None:
    log = InMemoryEventLog()
    await append(log, 5)
    async with following(log) as feed:
        nothing = Selection(type="inbox.purged")
        batches = [batch async for batch in feed.history(nothing, after=0)]
        assert batches == [([], 5)]
        some = Selection(type="message.*")
        found = [(sequences(one), reached) async for one, reached in feed.history(some, after=2)]
        assert found == [([3, 4, 5], 5), ([], 5)]


async def test_items_come_once_and_in_order_from_log_and_ring() -> None:
    log, seen = InMemoryEventLog(), []
    await append(log, 50)
    async with following(log, max_events=4) as feed, aclosing(feed.items(10)) as batches:
        async with asyncio.timeout(LIMIT_SECONDS):
            async for found in batches:
                seen += [one.sequence for one in found]
                if len(seen) in (40, 43):
                    await append(log, 3, start=len(log.events))
                    await asyncio.sleep(0.01)
                if len(seen) == 46:
                    break
    assert seen == list(range(11, 57))


async def test_nobody_listens_nothing_is_read() -> None:
    log = InMemoryEventLog()
    feeds = EventFeeds(log, max_events=10, max_bytes=10**9)
    feed, task = feeds.of("default"), asyncio.create_task(feeds.run())
    await append(log, 3)
    await asyncio.sleep(0.01)
    assert feed.ring is None
    task.cancel()


@pytest.mark.parametrize(
    ("pattern", "kind", "found"),
    [
        ("*", "execution.finished", True),
        ("execution.*", "execution.finished", True),
        ("*.fin*", "execution.finished", True),
        ("execution", "execution.finished", False),
        ("execution.finished", "execution.finished2", False),
        ("e.*", "execution.finished", False),
    ],
)
def test_types(pattern: str, kind: str, *, found: bool) -> None:
    assert type_matches(pattern, kind) is found


def test_a_body_is_shown_as_it_is_on_one_line() -> None:
    assert bytes(data_of(b'{"a":1.50,"b":"\xc3\xa9"}')) == b'{"a":1.50,"b":"\xc3\xa9"}'
    assert bytes(data_of(b'{\n "a": 1\r\n}')) == b'{"a":1}'
    for unreadable in (b"", b"\xff", b"{", b"[" * 100_000):
        assert bytes(data_of(unreadable)) == b"null"
    [one] = items(1, "two\nlines")
    assert one.frame.count(b"\n") == 4
    assert msgspec.json.decode(one.json)["data"]["message"] == "two\nlines"
