"""Three NATS servers under load: killed, wiped, cut off. All of them have what was acknowledged."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Self, TypeVar

import pytest
from nats.js.api import RawStreamMsg, StreamInfo

from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Draft, Recorded, from_message
from abaco_proto.errors import Unavailable
from abaco_proto.names import all_events_filter
from deadlines import LIMIT_SECONDS
from fault.log_load import Follower, Writer
from nats_cluster import Cluster, Member, running_cluster

PARTITION_SECONDS = float(os.environ.get("PARTITION_SECONDS", "0"))
"""At least. It lasts until the others have a leader and all writers have found them in any case."""

REPLICAS = 3
LOOK_SECONDS = 10.0
"""For each request of who only looks, a hundred at once: that they are soon is not the point."""

T = TypeVar("T")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@asynccontextmanager
async def connected(url: str, timeout: float = 1.5) -> AsyncGenerator[Connection, None]:  # noqa: ASYNC109 - of each request
    connection = Connection(url, name="test", replicas=REPLICAS, timeout=timeout)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


class Load:
    """Four writers on two inboxes, a follower at each server, and one that may choose."""

    def __init__(self, cluster: Cluster) -> None:
        self.writers: list[Writer] = []
        self.followers: list[Follower] = []
        self._cluster = cluster
        self._open = AsyncExitStack()
        self._work: list[asyncio.Task[None]] = []
        self._reading: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for n in range(4):
            connection = await self._connection(self._cluster.url)
            self.writers.append(Writer(connection, f"w{n}", f"foo_{n % 2}"))
        for url in (self._cluster.url, *(member.url for member in self._cluster.members)):
            self.followers.append(Follower(await self._connection(url)))
        self._reading = [asyncio.create_task(follower.run()) for follower in self.followers]
        self._work = [asyncio.create_task(writer.run()) for writer in self.writers]
        return self

    async def _connection(self, url: str) -> Connection:
        return await self._open.enter_async_context(connected(url))

    async def __aexit__(self, *_: object) -> None:
        await _end(self._work + self._reading)
        await self._open.aclose()

    @property
    def acknowledged(self) -> dict[int, Draft]:
        return {
            at: drafted for writer in self.writers for at, drafted in writer.acknowledged.items()
        }

    async def goes_on(self, count: int = 50, seconds: float = 60) -> None:
        """Wait until every writer was told of so many more."""
        before = [len(writer.acknowledged) for writer in self.writers]
        deadline = time.monotonic() + seconds
        while slow := [
            writer
            for writer, least in zip(self.writers, before, strict=True)
            if len(writer.acknowledged) < least + count
        ]:
            stuck = "; ".join(str(writer) for writer in slow)
            assert time.monotonic() < deadline, f"not {count} more in {seconds} s: {stuck}"
            await asyncio.sleep(0.05)

    async def stop_writing(self) -> None:
        await _end(self._work)
        self._work = []

    async def all_seen(self, end: int) -> None:
        """Wait until every follower has seen the last event."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while any(not f.seen or f.seen[-1] < end for f in self.followers):
                await asyncio.sleep(0.05)


async def _end(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(LIMIT_SECONDS):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        assert isinstance(result, asyncio.CancelledError), result


async def retried(connection: Connection, call: Callable[[], Awaitable[T]]) -> T:
    """The answer to what only looks: again until there is one."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            with suppress(Unavailable):
                return await connection.call(call, "test")
            await asyncio.sleep(0.05)


async def leader(connection: Connection) -> str:
    def look() -> Awaitable[StreamInfo]:
        return connection.jetstream.stream_info("ABACO_EVENTS")

    info = await retried(connection, look)
    assert info.cluster is not None
    return info.cluster.leader or ""


async def history_of(cluster: Cluster, member: Member) -> list[Recorded]:
    """What this very server has: the log's leader answers from its own disk, so it has to lead."""
    async with connected(cluster.url, LOOK_SECONDS) as connection:
        while True:
            await made_leader(connection, member)
            found = await history(connection)
            if await leader(connection) == member.name:  # all the time: it is not given back
                return found


async def made_leader(connection: Connection, member: Member) -> None:
    body = b'{"placement":{"preferred":"' + member.name.encode() + b'"}}'
    async with asyncio.timeout(LIMIT_SECONDS):
        while await leader(connection) != member.name:
            with suppress(Unavailable):  # while there is none
                await connection.request("$JS.API.STREAM.LEADER.STEPDOWN.ABACO_EVENTS", body)
            await asyncio.sleep(0.2)


async def history(connection: Connection) -> list[Recorded]:
    last = await JetStreamEventLog(connection).last(all_events_filter())
    assert last is not None
    found: list[Recorded] = []
    for start in range(1, last.sequence + 1, 100):
        some = range(start, min(start + 100, last.sequence + 1))
        found += await asyncio.gather(*(at(connection, sequence) for sequence in some))
    return found


async def at(connection: Connection, sequence: int) -> Recorded:
    """As the leader has it; the log's own ``at`` takes what any replica says."""

    def look() -> Awaitable[RawStreamMsg]:
        return connection.jetstream.get_msg("ABACO_EVENTS", seq=sequence)

    found = await retried(connection, look)
    assert found.subject is not None
    return from_message(sequence, found.subject, found.headers, found.data or b"")


async def test_nothing_acknowledged_is_lost(cluster: Cluster) -> None:
    async with connected(cluster.url, LOOK_SECONDS) as watch, Load(cluster) as load:
        await load.goes_on()
        first = cluster.member(await leader(watch))
        second = next(member for member in cluster.members if member is not first)
        for victim in (first, second):
            await asyncio.to_thread(kill_wipe_and_restart, victim)
            await load.goes_on()
            await asyncio.to_thread(cluster.wait_healthy)
        lonely = await leader(watch)
        cluster.cut_off(lonely)
        await asyncio.gather(load.goes_on(), asyncio.sleep(PARTITION_SECONDS))
        cluster.mend()
        await load.goes_on()
        await asyncio.to_thread(cluster.wait_healthy)
        await load.stop_writing()
        histories = [await history_of(cluster, member) for member in cluster.members]
        await load.all_seen(len(histories[0]))
        check(histories, load)


def kill_wipe_and_restart(victim: Member) -> None:
    victim.kill()
    victim.wipe()
    victim.start()


def check(histories: list[list[Recorded]], load: Load) -> None:
    whole = histories[0]
    end = len(whole)
    assert [r.sequence for r in whole] == list(range(1, end + 1))
    assert all(history == whole for history in histories)
    told = load.acknowledged
    assert len(told) > 500
    missing = [at for at, drafted in told.items() if at > end or not whole[at - 1].matches(drafted)]
    assert missing == []
    for actor_id in ("foo_0", "foo_1"):
        events = [r.event for r in whole]
        ordinals = [
            e.ordinal
            for e in events
            if isinstance(e, ev.MessageReceived) and e.actor_id == actor_id
        ]
        assert ordinals == list(range(len(ordinals)))
    for follower in load.followers:
        assert follower.seen == list(range(1, end + 1))
