"""The event log's contract, on a real JetStream; and what only the real one can show."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from abaco_jetstream import Connection, JetStreamEventLog
from abaco_jetstream.retry import append_until_stored, every
from abaco_proto.errors import Unavailable
from abaco_proto.events import Unrecognized
from abaco_proto.names import all_events_filter, history_filter
from contract.event_log_suite import INBOX, EventLogSuite, collect, message, take
from deadlines import LIMIT_SECONDS, prompt
from servers import NatsServer


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncGenerator[Connection, None]:
    connection = Connection(nats_server.url, name="test")
    await connection.open()
    yield connection
    await connection.close()


@pytest.fixture
def log(connection: Connection) -> JetStreamEventLog:
    return JetStreamEventLog(connection)


class TestJetStreamEventLog(EventLogSuite):
    pass


async def test_the_log_cannot_be_purged(connection: Connection, log: JetStreamEventLog) -> None:
    await log.append(message(0))
    with pytest.raises(Exception, match="purge"):
        await connection.jetstream.purge_stream("ABACO_EVENTS")
    assert len(await collect(log, INBOX)) == 1


async def test_bytes_that_do_not_decode_are_unrecognized(
    connection: Connection, log: JetStreamEventLog
) -> None:
    await connection.jetstream.publish("abaco.event.default.foo_0.message.received", b"\xff{")
    await connection.jetstream.publish(
        "abaco.event.default.foo_0.moon.landed", b'{"type":"moon.landed"}'
    )
    await log.append(message(0))
    found = await collect(log, history_filter("default", "foo_0"))
    assert [isinstance(r.event, Unrecognized) for r in found] == [True, True, False]


async def test_while_the_server_is_gone_appends_are_refused_and_never_sent(
    nats_server: NatsServer, connection: Connection, log: JetStreamEventLog
) -> None:
    await log.append(message(0))
    nats_server.stop()
    with prompt(2), pytest.raises(Unavailable):
        await log.append(message(1))
    nats_server.start()
    async with asyncio.timeout(LIMIT_SECONDS):
        while not connection.connected:
            await asyncio.sleep(0.02)
    assert len(await collect(log, all_events_filter())) == 1


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_follower_outlives_the_server(
    nats_server: NatsServer, connection: Connection, log: JetStreamEventLog, how: str
) -> None:
    for n in range(10):
        await log.append(message(n))
    follower = asyncio.create_task(take(log.follow([INBOX]), 20))
    getattr(nats_server, how)()
    nats_server.start()
    async with asyncio.timeout(LIMIT_SECONDS):
        for n in range(10, 20):
            await append_until_stored(log, message(n), after=0, backoff=every(0.05))
        found = await follower
    assert [r.sequence for r in found] == list(range(1, 21))
