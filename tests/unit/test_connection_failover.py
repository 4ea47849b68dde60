"""When a client of several NATS servers turns from the one it has to another."""

import asyncio

import nats.errors
import pytest

from abaco_jetstream import Connection
from abaco_jetstream.connection import nats_connection
from abaco_proto.errors import Conflict, Unavailable

FAILOVER_SECONDS = 0.05


class Client:
    """Connected to one of two servers; counts how often it reconnected to the other."""

    is_connected = True
    servers = ("one", "other")
    server = server_id = "one"

    def __init__(self) -> None:
        self.reconnected = 0

    async def force_reconnect(self) -> None:
        self.reconnected += 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(nats_connection, "FAILOVER_SECONDS", FAILOVER_SECONDS)
    return Client()


@pytest.fixture
def asked(client: Client) -> Connection:
    made = Connection("nats://127.0.0.1:1", name="test")
    made.client = client  # type: ignore[assignment]  # all that is asked of it
    return made


async def unanswered() -> None:
    raise nats.errors.TimeoutError


async def answered() -> None:
    pass


async def too_large() -> None:
    raise nats.errors.MaxPayloadError


async def refused() -> None:
    raise Conflict("another was first")


async def write_in_vain(asked: Connection) -> None:
    with pytest.raises(Unavailable):
        await asked.call(unanswered, "abaco.event")


async def test_reads_that_are_answered_do_not_keep_it_with_a_server_that_takes_nothing(
    asked: Connection, client: Client
) -> None:
    await write_in_vain(asked)
    await asked.call(answered)
    await asyncio.sleep(2 * FAILOVER_SECONDS)
    await asked.call(answered)
    await write_in_vain(asked)
    assert client.reconnected == 1


async def test_nor_do_events_that_it_refuses(asked: Connection, client: Client) -> None:
    await write_in_vain(asked)
    await asyncio.sleep(2 * FAILOVER_SECONDS)
    with pytest.raises(Conflict):
        await asked.call(refused, "abaco.event")
    await write_in_vain(asked)
    assert client.reconnected == 1


async def test_an_event_that_it_takes_does(asked: Connection, client: Client) -> None:
    await write_in_vain(asked)
    await asyncio.sleep(2 * FAILOVER_SECONDS)
    await asked.call(answered, "abaco.event")
    await write_in_vain(asked)
    assert client.reconnected == 0


async def test_what_is_too_large_to_be_sent_does_not_count_against_the_server(
    asked: Connection, client: Client
) -> None:
    for _ in range(3):
        with pytest.raises(Unavailable, match="maximum payload"):
            await asked.call(too_large, "$KV.ABACO_SNAPSHOTS")
        await asyncio.sleep(2 * FAILOVER_SECONDS)
    assert client.reconnected == 0
