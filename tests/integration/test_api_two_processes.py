"""Two api processes on one log: nothing twice, nothing left out."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.names import inbox_filter
from api_stage import Api, projector, result_of, running
from deadlines import LIMIT_SECONDS

NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"


@pytest.fixture
async def two(tmp_path: Path, nats_url: str) -> AsyncGenerator[list[httpx.AsyncClient], None]:
    """Clients of two processes that have a log and no database: commands need no more."""
    apis = [Api(tmp_path, nats_url, NO_DATABASE) for _ in range(2)]
    with running(*apis):
        clients = [httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) for api in apis]
        yield clients
        for client in clients:
            await client.aclose()


async def register(client: httpx.AsyncClient) -> str:
    answer = await client.post("/actors", data={"image": "a/b", "name": "foo"})
    actor_id: str = result_of(answer, 201)["id"]
    return actor_id


async def test_fifty_registrations_of_one_name(two: list[httpx.AsyncClient]) -> None:
    ids = await asyncio.gather(*[register(two[n % 2]) for n in range(50)])
    assert sorted(ids) == sorted(f"foo_{n}" for n in range(50))


async def test_two_hundred_messages_to_one_actor(
    two: list[httpx.AsyncClient], nats_url: str
) -> None:
    await register(two[0])

    async def send(n: int) -> str:
        answer = await two[n % 2].post("/actors/foo_0/messages", data={"message": str(n)})
        execution_id: str = result_of(answer)["execution_id"]
        return execution_id

    ids = await asyncio.gather(*[send(n) for n in range(200)])
    assert sorted(ids) == sorted(f"foo_0_exc_{n}" for n in range(200))
    assert await ordinals(nats_url) == list(range(200))


async def ordinals(nats_url: str) -> list[int]:
    """The ordinals of all messages, in the order of the log."""
    connection = Connection(nats_url, name="test")
    await connection.open()
    found = [
        recorded.event.ordinal
        async for batch in JetStreamEventLog(connection).read([inbox_filter("default", "foo_0")])
        for recorded in batch
        if isinstance(recorded.event, ev.MessageReceived)
    ]
    await connection.close()
    return found


async def test_what_one_registered_the_other_knows(two: list[httpx.AsyncClient]) -> None:
    for _ in range(10):
        actor_id = await register(two[0])
        sent = await two[1].post(f"/actors/{actor_id}/messages", data={"message": "hi"})
        assert result_of(sent)["execution_id"] == f"{actor_id}_exc_0"
        updated = await two[0].put(f"/actors/{actor_id}", data={"description": "x"})
        assert updated.status_code == 200
        gone = await two[1].delete(f"/actors/{actor_id}")
        assert gone.status_code == 200


async def test_a_sequence_of_one_is_waited_for_by_the_other(
    tmp_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    one, other = (Api(tmp_path, nats_url, postgres_dsn) for _ in range(2))
    with running(one, other, projector(tmp_path, nats_url, postgres_dsn)):
        async with (
            httpx.AsyncClient(base_url=one.url, timeout=LIMIT_SECONDS) as here,
            httpx.AsyncClient(base_url=other.url, timeout=LIMIT_SECONDS) as there,
        ):
            await wait_for_tables(there)
            for _ in range(20):
                created = await here.post("/actors", data={"image": "a/b", "name": "foo"})
                after = {"Abaco-After": created.headers["Abaco-Sequence"]}
                actor_id = result_of(created, 201)["id"]
                result_of(await there.get(f"/actors/{actor_id}", headers=after))


async def wait_for_tables(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
