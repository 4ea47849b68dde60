"""The event log on three servers: its contract, and what only a cluster can get wrong."""

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamWorkQueue
from abaco_jetstream import replicate as command
from abaco_proto.envelope import Draft, Expected, draft
from abaco_proto.errors import Conflict
from abaco_proto.events import Event
from abaco_proto.names import worker_requests_filter
from contract.event_log_suite import INBOX, EventLogSuite, collect, message
from deadlines import LIMIT_SECONDS
from nats_cluster import Cluster, Member, running_cluster


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture
async def cluster(shared_cluster: Cluster) -> AsyncGenerator[Cluster, None]:
    yield shared_cluster
    async with connected(shared_cluster.url) as connection:
        for stream in ("ABACO_EVENTS", "ABACO_LOGS"):
            await connection.jetstream.delete_stream(stream)


@asynccontextmanager
async def connected(
    url: str, *, timeout_seconds: float = 5, replicas: int = 3
) -> AsyncGenerator[Connection, None]:
    connection = Connection(url, name="test", timeout=timeout_seconds, replicas=replicas)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def connection(cluster: Cluster) -> AsyncGenerator[Connection, None]:
    async with connected(cluster.url) as opened:
        yield opened


@pytest.fixture
def log(connection: Connection) -> JetStreamEventLog:
    return JetStreamEventLog(connection)


class TestOnThreeServers(EventLogSuite):
    pass


async def leader(connection: Connection, cluster: Cluster) -> Member:
    info = await connection.jetstream.stream_info("ABACO_EVENTS")
    assert info.cluster is not None
    return cluster.member(info.cluster.leader or "")


@contextmanager
def stopped(members: Sequence[Member]) -> Iterator[None]:
    """They answer nothing for a while: appends that their leader received stay undecided."""
    for member in members:
        member.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for member in members:
            member.signal(signal.SIGCONT)


def drafted(event: Event, cause: str) -> Draft:
    return draft(event, tenant="default", time=b.T0, causation_id=cause)


async def test_a_condition_holds_against_what_is_under_way_with_the_same_filter(
    cluster: Cluster, connection: Connection
) -> None:
    """The server that is asked knows neither event yet; both would fit what it knows."""
    lead = await leader(connection, cluster)
    nothing_yet = Expected(filter=worker_requests_filter(), sequence=0)
    events = [b.requested(0, "foo_0"), b.requested(0, "bar_0")]
    async with connected(lead.url, timeout_seconds=8) as there:
        log = JetStreamEventLog(there)
        with stopped([member for member in cluster.members if member is not lead]):
            tries = [
                asyncio.create_task(log.append(drafted(event, "x"), expected=nothing_yet))
                for event in events
            ]
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in tries)
        results = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "int"]


async def test_ones_own_event_that_is_under_way_is_waited_for(
    cluster: Cluster, connection: Connection
) -> None:
    lead = await leader(connection, cluster)
    first = Expected(filter=INBOX, sequence=0)
    async with connected(lead.url, timeout_seconds=8) as there:
        log = JetStreamEventLog(there)
        with stopped([member for member in cluster.members if member is not lead]):
            tries = [asyncio.create_task(log.append(message(0), expected=first)) for _ in range(2)]
            await asyncio.sleep(0.3)
        assert await asyncio.gather(*tries) == [1, 1]
        with pytest.raises(Conflict):
            await log.append(message(0, "req-2"), expected=first)


async def test_a_log_on_one_server_is_put_on_three(cluster: Cluster) -> None:
    async with connected(cluster.url, replicas=1) as connection:
        for stream in ("ABACO_EVENTS", "ABACO_LOGS"):
            info = await connection.jetstream.stream_info(stream)
            assert info.config.num_replicas == 1
        log = JetStreamEventLog(connection)
        for n in range(10):
            await log.append(message(n))
        await log.append(b.envelope_of(b.requested()))
        queue = JetStreamWorkQueue(connection, "h1")
        deliveries = queue.deliveries()
        async with asyncio.timeout(LIMIT_SECONDS):
            delivery = await anext(deliveries)
            await delivery.done()
            await command.main(cluster.url, 3)
            await until_replicated(connection)
        await log.append(message(10))
        assert len(await collect(log, INBOX)) == 11
        await deliveries.aclose()


async def until_replicated(connection: Connection) -> None:
    """Both the stream and the consumer of the host have two more servers that are up to date."""
    names = "$JS.API.CONSUMER.NAMES.ABACO_EVENTS"
    [name] = json.loads((await connection.client.request(names, b"")).data)["consumers"]
    while True:
        stream = await connection.jetstream.stream_info("ABACO_EVENTS")
        consumer = await connection.jetstream.consumer_info("ABACO_EVENTS", name)
        of_both = [(info.cluster.replicas or []) for info in (stream, consumer) if info.cluster]
        if all(len(peers) == 2 and all(peer.current for peer in peers) for peers in of_both):
            return
        await asyncio.sleep(0.1)
