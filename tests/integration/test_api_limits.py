"""Limits: more than can be taken is turned away at once, and what is slow holds up nobody else."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog
from api_stage import Api, becomes_ready, error_of, eventually, projector, result_of, running
from deadlines import LIMIT_SECONDS
from servers import NatsServer, PostgresServer

NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"


async def register(client: httpx.AsyncClient) -> None:
    result_of(await client.post("/actors", data={"image": "a/b", "name": "foo"}), 201)


async def send(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/actors/foo_0/messages", data={"message": "hi"})


async def test_more_requests_than_are_taken_are_turned_away(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    api = Api(tmp_path, nats_server.url, NO_DATABASE, max_requests=5, append_timeout_seconds=20)
    with running(api):
        async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
            await register(client)
            assert nats_server._process is not None
            os.kill(nats_server._process.pid, signal.SIGSTOP)
            try:
                waiting = {asyncio.create_task(send(client)) for _ in range(8)}
                turned_away: set[asyncio.Task[httpx.Response]] = set()
                while len(turned_away) < 3:
                    done, waiting = await asyncio.wait(
                        waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED
                    )
                    assert done
                    turned_away |= done
                for task in turned_away:
                    assert error_of(task.result(), 429)["error"] == "too_many"
                    assert task.result().headers["Retry-After"]
                assert (await client.get("/healthz")).status_code == 200
                error_of(await client.get("/actors"), 429)
            finally:
                os.kill(nats_server._process.pid, signal.SIGCONT)
            for accepted in await asyncio.gather(*waiting):
                result_of(accepted)
            result_of(await send(client))


async def test_a_full_inbox_takes_more_as_it_is_worked_off(tmp_path: Path, nats_url: str) -> None:
    api = Api(tmp_path, nats_url, NO_DATABASE, max_inbox_messages=20)
    with running(api):
        async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
            await register(client)
            answers = await asyncio.gather(*[send(client) for _ in range(50)])
            full = [a for a in answers if a.status_code != 200]
            assert len(full) == 30
            for answer in full:
                assert error_of(answer, 429)["error"] == "inbox_full"
                assert answer.headers["Retry-After"]
            await hand_out(nats_url, 7)
            answers = [await send(client) for _ in range(10)]
            assert [a.status_code for a in answers] == [200] * 8 + [429] * 2
            result_of(await client.delete("/actors/foo_0/messages"))
            result_of(await send(client))


async def hand_out(nats_url: str, ordinal: int) -> None:
    """What the scheduler says when it gives a message to a worker."""
    connection = Connection(nats_url, name="test")
    await connection.open()
    await JetStreamEventLog(connection).append(b.envelope_of(b.assigned(ordinal)))
    await connection.close()


@pytest.fixture
async def client(
    tmp_path: Path, nats_url: str, postgres_server: PostgresServer
) -> AsyncGenerator[httpx.AsyncClient, None]:
    dsn = postgres_server.dsn()
    api = Api(tmp_path, nats_url, dsn, query_timeout_seconds=8)
    with running(api, projector(tmp_path, nats_url, dsn)):
        async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
            await becomes_ready(client)
            yield client


async def test_a_slow_postgres_slows_queries_only(
    client: httpx.AsyncClient, postgres_server: PostgresServer
) -> None:
    """More queries than there are connections wait, and meanwhile all commands are answered."""
    await register(client)
    result_of(await client.get("/actors/foo_0"))
    held = postgres_server.processes()
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    try:
        queries = [asyncio.create_task(client.get("/actors/foo_0")) for _ in range(40)]
        await asyncio.sleep(0)
        answers = await asyncio.gather(*[send(client) for _ in range(200)])
        keyed = await client.post(
            "/actors/foo_0/messages", data={"message": "x"}, headers={"Idempotency-Key": "k"}
        )
        assert not any(query.result().is_success for query in queries if query.done())
        for answer in (*answers, keyed):
            result_of(answer)
    finally:
        for pid in held:
            os.kill(pid, signal.SIGCONT)
    assert {(await query).status_code for query in queries} <= {200, 503}

    async def shown() -> bool:
        found = await client.get("/actors/foo_0/executions")
        return found.status_code == 200 and found.json()["result"]["total_executions"] == 201

    await eventually(shown)
