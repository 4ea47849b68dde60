"""Postgres has no connection left: queries say so, commands go on, and nobody restarts anything."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from api_stage import (
    Api,
    Process,
    becomes_ready,
    error_of,
    eventually,
    projector,
    result_of,
    running,
)
from deadlines import LIMIT_SECONDS, prompt
from servers import NatsServer, PostgresServer

QUERIES = ("/actors", "/actors/foo_0", "/actors/foo_0/executions", "/actors/foo_0/messages")


@pytest.fixture
def processes(
    tmp_path: Path, nats_server: NatsServer, postgres_server: PostgresServer
) -> tuple[Api, Process]:
    dsn = postgres_server.dsn()
    return Api(tmp_path, nats_server.url, dsn), projector(tmp_path, nats_server.url, dsn)


@asynccontextmanager
async def no_connection_left(server: PostgresServer) -> AsyncGenerator[None, None]:
    """Others hold them all, and those of our services are cut off."""
    held = [await asyncpg.connect(server.dsn())]

    async def hold_all() -> bool:
        """Whether there is none left, and none is ours."""
        await held[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND NOT pid = ANY($1::int[])"
            " AND backend_type = 'client backend'",
            [one.get_server_pid() for one in held],
        )
        try:
            while True:
                held.append(await asyncpg.connect(server.dsn()))
        except asyncpg.TooManyConnectionsError:
            query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            return bool(await held[0].fetchval(query) == len(held))

    try:
        await eventually(hold_all)
        yield
    finally:
        for one in held:
            one.terminate()


async def test_it_is_said_and_waited_for(
    processes: tuple[Api, Process], postgres_server: PostgresServer
) -> None:
    api, projecting = processes
    with running(api, projecting):
        async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
            await becomes_ready(client)
            await client.post("/actors", data={"image": "a/b", "name": "foo"})
            result_of(await client.get("/actors/foo_0"))
            async with no_connection_left(postgres_server):
                for path in QUERIES:
                    with prompt(2):
                        answer = await client.get(path)
                    assert "too many clients" in error_of(answer, 503)["msg"]
                    assert int(answer.headers["Retry-After"]) >= 1
                for n in range(5):
                    sent = await client.post("/actors/foo_0/messages", data={"message": "hi"})
                    assert result_of(sent)["execution_id"] == f"foo_0_exc_{n}"
                ready = await client.get("/readyz")
                assert "too many clients" in ready.json()["result"]["postgres"]
                await eventually(lambda: _said(projecting, "Postgres is unavailable ("))
            await becomes_ready(client)
            shown = result_of(await client.get("/actors/foo_0/executions"))
            assert shown["total_executions"] == 5
    assert projecting.log.count("Postgres is unavailable (") == 1, projecting.log
    assert projecting.log.count("Postgres is available again") == 1, projecting.log
    for process in processes:
        assert "Traceback" not in process.log, process.log


async def test_it_is_waited_for_at_the_start(
    processes: tuple[Api, Process], postgres_server: PostgresServer
) -> None:
    api, projecting = processes
    async with AsyncExitStack() as until_the_end:
        async with no_connection_left(postgres_server):
            until_the_end.enter_context(running(api, projecting))
            client = httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS)
            await until_the_end.enter_async_context(client)
            await eventually(lambda: _said(projecting, "Postgres is unavailable ("))
            answer = await client.post("/actors", data={"image": "a/b", "name": "foo"})
            assert result_of(answer, 201)["id"] == "foo_0"
        await becomes_ready(client)
        assert result_of(await client.get("/actors/foo_0"))["id"] == "foo_0"


async def _said(process: Process, word: str) -> bool:
    await asyncio.sleep(0)
    return word in process.log
