"""Servers that go and come back: what still works, what is said, and that nobody restarts."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.names import all_events_filter
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
from servers import NatsServer, PostgresServer, free_port

QUERIES = ("/actors", "/actors/foo_0", "/actors/foo_0/executions", "/actors/foo_0/workers")


@pytest.fixture
async def client(
    tmp_path: Path, nats_server: NatsServer, postgres_server: PostgresServer
) -> AsyncGenerator[httpx.AsyncClient, None]:
    dsn = postgres_server.dsn()
    api = Api(tmp_path, nats_server.url, dsn)
    with running(api, projector(tmp_path, nats_server.url, dsn)):
        async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
            await becomes_ready(client)
            await client.post("/actors", data={"image": "a/b", "name": "foo"})
            result_of(await client.get("/actors/foo_0"))
            yield client
        assert "Traceback" not in api.log, api.log


async def send(client: httpx.AsyncClient, message: str = "hi") -> httpx.Response:
    return await client.post("/actors/foo_0/messages", data={"message": message})


async def queries_fail_soon(client: httpx.AsyncClient) -> None:
    for path in QUERIES:
        with prompt(1):
            answer = await client.get(path)
        assert "Postgres" in error_of(answer, 503)["msg"]
        assert answer.headers["Retry-After"]


async def test_without_postgres_commands_go_on(
    client: httpx.AsyncClient, postgres_server: PostgresServer
) -> None:
    postgres_server.kill()
    for n in range(5):
        assert result_of(await send(client))["execution_id"] == f"foo_0_exc_{n}"
    await queries_fail_soon(client)
    ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["result"]["nats"] == "ok"
    assert "Postgres" in ready.json()["result"]["postgres"]
    assert (await client.get("/healthz")).status_code == 200

    postgres_server.start()
    await becomes_ready(client)
    assert result_of(await client.get("/actors/foo_0/executions"))["total_executions"] == 5


async def test_a_postgres_that_hangs_is_no_better_than_none(
    client: httpx.AsyncClient, postgres_server: PostgresServer
) -> None:
    processes = postgres_server.processes()
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.gather(*[queries_fail_soon(client) for _ in range(5)])
        result_of(await send(client))
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
    await becomes_ready(client)
    assert result_of(await client.get("/actors/foo_0/executions"))["total_executions"] == 1


async def test_without_nats_commands_fail_soon_and_nothing_is_sent_later(
    client: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    result_of(await send(client, "before"))
    nats_server.kill()

    async def fails(method: str, path: str, **body: str) -> None:
        with prompt(2):
            answer = await client.request(method, path, data=body)
        assert "NATS" in error_of(answer, 503)["msg"]

    await asyncio.gather(
        *[fails("POST", "/actors/foo_0/messages", message="lost") for _ in range(30)],
        fails("POST", "/actors", image="a/b", name="foo"),
        fails("POST", "/actors", image="a/b", name="bar"),
        fails("PUT", "/actors/foo_0", description="lost"),
        fails("DELETE", "/actors/foo_0"),
        fails("DELETE", "/actors/foo_0/workers/foo_0_wkr_0"),
        fails("POST", "/actors/nobody_0/state", state="lost"),
    )
    result_of(await client.get("/actors/foo_0"))
    assert "NATS" in (await client.get("/readyz")).json()["result"]["nats"]

    nats_server.start()
    await becomes_ready(client)
    assert result_of(await send(client, "after"))["execution_id"] == "foo_0_exc_1"
    assert await messages(nats_server.url) == ["before", "after"]

    async def shown() -> bool:
        answer = await client.get("/actors/foo_0/executions")
        return answer.status_code == 200 and answer.json()["result"]["total_executions"] == 2

    await eventually(shown)


async def messages(nats_url: str) -> list[str]:
    """All messages in the log; there is nothing but these and a registration."""
    connection = Connection(nats_url, name="test")
    await connection.open()
    found = [
        recorded.event
        async for batch in JetStreamEventLog(connection).read([all_events_filter()])
        for recorded in batch
    ]
    await connection.close()
    assert isinstance(found[0], ev.ActorRegistered)
    rest = found[1:]
    assert all(isinstance(event, ev.MessageReceived) for event in rest)
    return [event.message for event in rest if isinstance(event, ev.MessageReceived)]


async def test_a_nats_that_hangs_costs_everybody_less_than_two_seconds(
    client: httpx.AsyncClient, nats_server: NatsServer
) -> None:
    assert nats_server._process is not None
    os.kill(nats_server._process.pid, signal.SIGSTOP)
    try:
        with prompt(2):
            answers = await asyncio.gather(*[send(client) for _ in range(30)])
        for answer in answers:
            error_of(answer, 503)
    finally:
        os.kill(nats_server._process.pid, signal.SIGCONT)

    async def works() -> bool:
        return (await send(client)).status_code == 200

    await eventually(works)


async def test_an_api_that_starts_before_everything_else(
    tmp_path: Path, nats_server: NatsServer, postgres_server: PostgresServer
) -> None:
    nats_server.stop()
    postgres_server.stop()
    dsn = postgres_server.dsn()
    api = Api(tmp_path, nats_server.url, dsn)
    with running(api, projector(tmp_path, nats_server.url, dsn)):
        async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
            assert (await client.get("/healthz")).json()["status"] == "success"
            with prompt(2):
                error_of(await client.post("/actors", data={"image": "a/b", "name": "foo"}), 503)
            error_of(await client.get("/actors"), 503)
            assert (await client.get("/readyz")).status_code == 503
            nats_server.start()
            postgres_server.start()
            await becomes_ready(client, 30)
            created = await client.post("/actors", data={"image": "a/b", "name": "foo"})
            assert result_of(created, 201)["id"] == "foo_0"
            result_of(await client.get("/actors/foo_0"))
        with prompt(2):
            assert api.stop() == 0


async def test_read_models_that_are_behind_say_where_they_are(
    tmp_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    api = Api(tmp_path, nats_url, postgres_dsn, read_wait_seconds=0.2, max_lag_events=0)
    late = projector(tmp_path, nats_url, postgres_dsn)
    with running(api, late):
        async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
            await becomes_ready(client)
            late.stop()
            created = await client.post("/actors", data={"image": "a/b", "name": "foo"})
            result_of(created, 201)
            answer = await client.get("/actors/foo_0")
            assert "at 0, need 1" in error_of(answer, 503)["msg"]
            assert answer.headers["Retry-After"]
            ready = await client.get("/readyz")
            assert "1 events behind" in ready.json()["result"]["projector"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"api_port": "http"}, "abaco-api: ABACO_API_PORT: "),
        ({"init_count": "-1"}, "abaco-api: ABACO_INIT_COUNT: "),
        ({"api_host": "192.0.2.1"}, "abaco-api: ABACO_AUTH is off, but"),
        (
            {"api_host": "192.0.2.1", "auth_off_anywhere": "true"},
            "abaco-api: ABACO_API_PORT: cannot listen",
        ),
    ],
)
def test_a_bad_setting_ends_the_process_with_one_line(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    values = {"nats_url": "nats://127.0.0.1:9", "postgres_dsn": "postgresql://x@127.0.0.1:9/x"}
    values |= {"api_port": str(free_port()), **settings}
    process = Process("abaco_api", tmp_path, **values)
    process.start()
    assert process.wait() == 2
    [line] = process.log.splitlines()
    assert line.startswith(said)
