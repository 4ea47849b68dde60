"""Who may do what on NATS, on a real server with the users of the shipped configurations."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

import builders as b
from abaco_jetstream import (
    Connection,
    JetStreamEventLog,
    JetStreamSnapshots,
    JetStreamWorkQueue,
)
from abaco_local.servers.nats_server import authorization
from abaco_proto import events as ev
from abaco_proto import permissions
from abaco_proto.envelope import draft
from abaco_proto.events import OWNERS, Event, Owner
from abaco_proto.names import all_events_filter, event_subject
from deadlines import LIMIT_SECONDS
from servers import NatsServer, scratch_folder

USERS = sorted(permissions.users())
LAST = "nobody.may.say.this"
SERVICES = ("api", "projector", "scheduler", "worker")


@pytest.fixture
def server() -> Iterator[NatsServer]:
    passwords = {user: f'"{user}-pw"' for user in USERS}
    with scratch_folder() as folder:
        server = NatsServer(folder)
        with server.config.open("a") as config:
            config.write("\n" + authorization({"abaco": '"abaco-pw"'}, passwords))
        try:
            server.start()
            yield server
        finally:
            server.kill()


def url(server: NatsServer, user: str) -> str:
    return server.url.replace("://", f"://{user}:{user}-pw@")


@asynccontextmanager
async def connected(server: NatsServer, user: str) -> AsyncGenerator[Connection, None]:
    connection = Connection(url(server, user), name="test")
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def client(server: NatsServer, user: str) -> AsyncGenerator[Client, None]:
    """A plain client, as somebody else's program would be."""
    prefix = permissions.inbox_prefix(user)
    connection = await nats.connect(url(server, user), inbox_prefix=prefix, error_cb=_ignore)
    try:
        yield connection
    finally:
        await connection.close()


async def _ignore(_: Exception) -> None:
    """What is refused is read in the server's log."""


async def refused(server: NatsServer, connection: Client) -> set[str]:
    """The subjects that the server has not let this client publish or subscribe to, so far."""
    await connection.publish(LAST, b"")
    async with asyncio.timeout(LIMIT_SECONDS):
        while LAST not in (found := re.findall(r'Violation - Subject "([^"]+)"', server.log)):
            await connection.flush()
    return {*found} - {LAST}


ALSO: dict[type[Event], Owner] = {
    ev.WorkerStopRequested: Owner.API,
    ev.ExecutionHaltRequested: Owner.SCHEDULER,
}


def owners_of(event: Event) -> set[str]:
    """What the catalogue says, and the two exceptions that its text names."""
    kind = type(event)
    return {OWNERS[kind], ALSO.get(kind, OWNERS[kind])}


@pytest.mark.parametrize("user", USERS)
async def test_a_user_appends_what_it_owns_and_nothing_else(server: NatsServer, user: str) -> None:
    async with client(server, user) as connection:
        for event in b.EXAMPLES:
            await connection.publish(event_subject("default", event), b"{}")
        foreign = [event for event in b.EXAMPLES if user not in owners_of(event)]
        found = await refused(server, connection)
    assert {type(event) for event in b.EXAMPLES} == {*OWNERS}
    assert found == {event_subject("default", event) for event in foreign}


@pytest.mark.parametrize("user", SERVICES)
async def test_a_service_makes_the_streams_and_reads_the_log(server: NatsServer, user: str) -> None:
    async with connected(server, user) as connection:
        log = JetStreamEventLog(connection)
        assert [batch async for batch in log.read([all_events_filter()])] == []
        await connection.jetstream.stream_info("ABACO_LOGS")


@pytest.mark.parametrize("user", USERS)
async def test_only_the_scheduler_has_snapshots(server: NatsServer, user: str) -> None:
    subjects = {"$KV.ABACO_SNAPSHOTS.x", "$JS.API.DIRECT.GET.KV_ABACO_SNAPSHOTS"}
    async with client(server, user) as connection:
        for subject in subjects:
            await connection.publish(subject, b"{}")
        found = await refused(server, connection)
    assert found == (set() if user == Owner.SCHEDULER else subjects)


async def test_the_scheduler_keeps_a_snapshot_with_the_rights_it_has(server: NatsServer) -> None:
    async with connected(server, Owner.SCHEDULER) as connection:
        snapshots = JetStreamSnapshots(connection)
        await snapshots.put("scheduler", b"as it is")
        assert await snapshots.get("scheduler") == b"as it is"


@pytest.mark.parametrize("user", USERS)
async def test_nobody_hears_the_answers_to_another(server: NatsServer, user: str) -> None:
    inboxes = {other: f"_INBOX_{other}.x" for other in SERVICES}
    async with client(server, user) as connection:
        for inbox in inboxes.values():
            await connection.subscribe(inbox)
        found = await refused(server, connection)
    assert found == {inbox for other, inbox in inboxes.items() if other != user}


async def test_a_reader_reads_history_and_what_comes(server: NatsServer) -> None:
    async with connected(server, "api") as api, connected(server, permissions.READER) as reader:
        drafted = draft(b.received(), tenant="default", time=b.T0, causation_id="r")
        await JetStreamEventLog(api).append(drafted)
        log = JetStreamEventLog(reader)
        [[found]] = [batch async for batch in log.read([all_events_filter()]) if batch]
        assert found.event == b.received()
        live = await reader.client.subscribe("abaco.event.>")
        await reader.client.flush()
        await JetStreamEventLog(api).append(
            draft(b.received(1), tenant="default", time=b.T0, causation_id="r")
        )
        assert (
            await live.next_msg(LIMIT_SECONDS)
        ).subject == "abaco.event.default.foo_0.message.received"


async def test_a_reader_may_use_any_kind_of_consumer(server: NatsServer) -> None:
    async with connected(server, "api") as api, client(server, "reader") as connection:
        drafted = draft(b.received(), tenant="default", time=b.T0, causation_id="r")
        await JetStreamEventLog(api).append(drafted)
        jetstream = connection.jetstream()
        ordered = await jetstream.subscribe("abaco.event.>", ordered_consumer=True)
        assert (await ordered.next_msg(LIMIT_SECONDS)).data
        durable = await jetstream.pull_subscribe("abaco.event.>", durable="mine")
        [message] = await durable.fetch(1, timeout=LIMIT_SECONDS)
        await message.ack_sync()
        assert (await jetstream.consumer_info("ABACO_EVENTS", "mine")).num_pending == 0
        await jetstream.delete_consumer("ABACO_EVENTS", "mine")
        assert await refused(server, connection) == set()


FORBIDDEN = {
    "abaco.log.default.foo_0.foo_0_exc_0",
    "abaco.heartbeat.h1",
    "$JS.API.CONSUMER.NAMES.ABACO_EVENTS",
    "$JS.API.CONSUMER.LIST.ABACO_EVENTS",
    "$JS.API.CONSUMER.CREATE.ABACO_LOGS",
    "$JS.API.STREAM.MSG.GET.ABACO_LOGS",
    "$JS.API.STREAM.CREATE.ABACO_EVENTS",
}
VERBS = ("UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE")
CHANGES = {
    f"$JS.API.STREAM.{verb}.{name}" for verb in VERBS for name in ("ABACO_EVENTS", "ABACO_LOGS")
}


async def test_a_reader_changes_nothing(server: NatsServer) -> None:
    async with client(server, "reader") as connection:
        for subject in FORBIDDEN | CHANGES:
            await connection.publish(subject, b"{}")
        assert await refused(server, connection) == FORBIDDEN | CHANGES


@pytest.mark.parametrize("user", SERVICES)
async def test_no_service_changes_a_stream(server: NatsServer, user: str) -> None:
    async with client(server, user) as connection:
        for subject in CHANGES:
            await connection.publish(subject, b"{}")
        assert await refused(server, connection) == CHANGES


async def request_worker(server: NatsServer, host_id: str) -> int:
    """Append something that is addressed to a host."""
    async with connected(server, "scheduler") as connection:
        drafted = draft(b.requested(host_id=host_id), tenant="default", time=b.T0, causation_id="r")
        answer = await connection.request(event_subject("default", drafted.event), b"{}")
        return int(answer["seq"])


async def take(server: NatsServer, host_id: str) -> int:
    """Settle the next piece of work of a host, as a worker process that comes and goes."""
    async with connected(server, "worker") as connection, asyncio.timeout(LIMIT_SECONDS):
        queue = JetStreamWorkQueue(connection, host_id)
        async for delivery in queue.deliveries():
            await delivery.done()
            return delivery.recorded.sequence
    raise AssertionError("a queue never ends")


async def test_a_reader_cannot_guess_the_consumer_of_a_host(server: NatsServer) -> None:
    sequence = await request_worker(server, "h1")
    assert await take(server, "h1") == sequence
    async with connected(server, "abaco") as owner, client(server, "reader") as reader:
        [found] = await owner.jetstream.consumers_info("ABACO_EVENTS")
        before = await owner.jetstream.consumer_info("ABACO_EVENTS", found.name)
        config = ConsumerConfig(name="host-h1", ack_policy=AckPolicy.EXPLICIT)
        await reader.jetstream().add_consumer("ABACO_EVENTS", config)
        after = await owner.jetstream.consumer_info("ABACO_EVENTS", before.name)
        assert after.config == before.config


async def test_a_host_finds_its_own_consumer_again(server: NatsServer) -> None:
    for host_id in ("h1-2", "h1", "h1-2", "h1"):
        sequence = await request_worker(server, host_id)
        assert await take(server, host_id) == sequence
    async with connected(server, "abaco") as owner:
        found = await owner.jetstream.consumers_info("ABACO_EVENTS")
        names = sorted(info.name.rpartition("_")[0] for info in found)
        assert names == ["host-h1", "host-h1-2"]
