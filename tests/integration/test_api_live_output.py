"""Output that is followed over real servers, while a worker that this test plays writes it."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import httpx
import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamOutputLog
from abaco_proto import events as ev
from abaco_proto import streams
from abaco_proto.errors import Unavailable
from abaco_proto.output import Output
from api_stage import (
    Api,
    becomes_ready,
    error_of,
    eventually,
    projector,
    result_of,
    running,
    whole_stage,
)
from deadlines import LIMIT_SECONDS, prompt
from servers import LOOPBACK, NatsServer, PostgresServer, scratch_folder

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    settings = {"max_followers": 5, "stream_write_seconds": 3}
    with whole_stage(shared_postgres, "api_live_output", **settings) as found:
        yield found
        assert "Traceback" not in found.log, found.log


@pytest.fixture
async def run(api: Api) -> AsyncGenerator["Run", None]:
    async with a_run(api.url, api.nats_url) as run:
        yield run


class Run:
    """An execution of an actor of its own, and what its worker says."""

    def __init__(self, client: httpx.AsyncClient, connection: Connection, actor_id: str) -> None:
        self.client = client
        self.connection = connection
        self.actor_id = actor_id
        self.log = JetStreamEventLog(connection)
        self.outputs = JetStreamOutputLog(connection)
        self.path = f"/actors/{actor_id}/executions/{actor_id}_exc_0"
        self.written = b""
        self.attempt = 0

    async def append(self, *events: ev.Event) -> dict[str, str]:
        sequence = [await self.log.append(b.envelope_of(event)) for event in events][-1]
        return {"Abaco-After": str(sequence)}

    async def start(self) -> None:
        self.attempt += 1
        self.written = b""
        attempt = {"attempt": self.attempt}
        assigned = b.assigned(0, self.actor_id, **attempt)
        await self.append(assigned, b.started(0, self.actor_id, **attempt))

    async def write(self, data: bytes) -> None:
        output = Output(
            tenant="default",
            actor_id=self.actor_id,
            execution_id=f"{self.actor_id}_exc_0",
            attempt=self.attempt,
            offset=len(self.written),
            data=data,
        )
        await self.outputs.write(output)
        self.written += data

    async def finish(self) -> dict[str, str]:
        size = len(self.written)
        return await self.append(b.finished(0, self.actor_id, attempt=self.attempt, log_bytes=size))

    @asynccontextmanager
    async def followed(self, **headers: str) -> AsyncGenerator["Followed", None]:
        """The output as a client follows it."""
        path = f"{self.path}/logs?follow=true"
        async with self.client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["x-accel-buffering"] == "no"
            yield Followed(answer)

    async def followers(self) -> int:
        info = await self.connection.jetstream.stream_info(streams.LOGS.name)
        return info.state.consumer_count - 1  # the projector's


class Followed:
    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.text = ""
        self._parts = answer.aiter_text()

    async def until(self, text: str) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while text not in self.text:
                self.text += await anext(self._parts)

    async def whole(self) -> str:
        async with asyncio.timeout(LIMIT_SECONDS):
            async for part in self._parts:
                self.text += part
        return self.text


async def surely(act: Callable[[], Awaitable[Any]]) -> None:
    """Do something as soon as the log is back."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            with suppress(Unavailable):
                await act()
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def a_run(url: str, nats_url: str, **definition: Any) -> AsyncGenerator[Run, None]:
    connection = Connection(nats_url, name="test")
    await connection.open()
    try:
        async with httpx.AsyncClient(base_url=url, timeout=LIMIT_SECONDS) as client:
            await becomes_ready(client)
            said = {"image": "a/b", "name": "foo", **definition}
            actor_id = result_of(await client.post("/actors", json=said), 201)["id"]
            await client.post(f"/actors/{actor_id}/messages", data={"message": "hi"})
            yield Run(client, connection, actor_id)
    finally:
        await connection.close()


async def test_output_is_read_as_it_is_written(run: Run) -> None:
    async with run.followed() as followed:
        assert followed.answer.headers["content-type"] == "text/plain; charset=utf-8"
        await run.start()
        await run.write(b"first line\n")
        await followed.until("first line\n")
        await run.write(b"gr\xc3")
        await followed.until("gr")
        await run.write(b"\xbc\xc3\x9fe\n")
        await followed.until("grüße\n")
        await run.finish()
        assert await followed.whole() == "first line\ngrüße\n"
    shown = await run.client.get(f"{run.path}/logs")
    assert result_of(shown) == "first line\ngrüße\n"


async def test_without_follow_the_answer_is_what_there_is_so_far(run: Run) -> None:
    await run.start()
    await run.write(b"so far\n")

    async def stored() -> bool:
        return bool(result_of(await run.client.get(f"{run.path}/logs")) == "so far\n")

    await eventually(stored)
    assert result_of(await run.client.get(f"{run.path}/logs?follow=false")) == "so far\n"


async def test_who_joins_late_gets_all_of_it_and_the_end(run: Run) -> None:
    await run.start()
    for n in range(300):
        await run.write(f"line {n}\n".encode())
    async with run.followed() as followed:
        await followed.until("line 299\n")
        await run.finish()
        assert await followed.whole() == run.written.decode()
    async with run.followed() as followed:
        assert await followed.whole() == run.written.decode()


async def test_events_end_with_the_execution_and_can_be_resumed(run: Run) -> None:
    await run.start()
    await run.write(b"one\n")
    async with run.followed(**EVENTS) as followed:
        assert followed.answer.headers["content-type"].startswith("text/event-stream")
        await followed.until("data: one\ndata: \n\n")
        assert followed.text.startswith("id: 1:4\nevent: output\n")
    await run.write(b"two\n")
    async with run.followed(**EVENTS, **{"Last-Event-ID": "1:4"}) as followed:
        await followed.until("two")
        await run.finish()
        text = await followed.whole()
    assert "one" not in text
    assert text.startswith("id: 1:8\nevent: output\ndata: two\ndata: \n\n")
    assert f'event: end\ndata: {{"id":"{run.actor_id}_exc_0"' in text
    assert '"status":"COMPLETE"' in text
    async with run.client.stream("GET", f"{run.path}/logs", headers=EVENTS) as answer:
        assert "event: end" in (await answer.aread()).decode()


async def test_a_new_attempt_is_marked(run: Run) -> None:
    await run.start()
    await run.write(b"first try\n")
    async with run.followed() as followed:
        await followed.until("first try\n")
        await run.append(b.execution_failed(0, run.actor_id))
        await run.start()
        await run.write(b"second try\n")
        await run.finish()
        text = await followed.whole()
    assert text == "first try\n\n[attempt 2 begins here]\nsecond try\n"


@pytest.mark.parametrize("how", ["halt", "purge", "abandon"])
async def test_what_ends_without_a_finish_ends_the_answer(run: Run, how: str) -> None:
    async with run.followed() as followed:
        if how == "halt":
            result_of(await run.client.delete(run.path))
        elif how == "purge":
            result_of(await run.client.delete(f"/actors/{run.actor_id}/messages"))
        else:
            await run.start()
            await run.write(b"so far\n")
            await run.append(b.abandoned(0, run.actor_id))
        assert await followed.whole() == ("so far\n" if how == "abandon" else "")


async def test_who_goes_away_leaves_no_consumer_behind(run: Run) -> None:
    await run.start()
    async with run.followed(), run.followed():
        async with asyncio.timeout(LIMIT_SECONDS):
            while await run.followers() != 2:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(LIMIT_SECONDS):
        while await run.followers():
            await asyncio.sleep(0.01)


async def test_there_is_a_most_of_followers(run: Run) -> None:
    await run.start()
    async with run.followed(), run.followed(), run.followed(), run.followed(), run.followed():
        async with asyncio.timeout(LIMIT_SECONDS):
            while await run.followers() != 5:
                await asyncio.sleep(0.01)
        answer = await run.client.get(f"{run.path}/logs?follow=true")
        assert error_of(answer, 429)["error"] == "too_many"
        assert answer.headers["Retry-After"]


async def test_what_cannot_be_followed_is_said_in_the_envelope(run: Run) -> None:
    error_of(await run.client.get(f"{run.path[:-1]}9/logs?follow=true"), 404)
    error = error_of(await run.client.get(f"{run.path}/logs?follow=perhaps"), 400)
    assert error["msg"].startswith("follow: ")
    error_of(await run.client.get(f"{run.path}/logs?folow=true"), 400)
    headers = {"Last-Event-ID": "yesterday"}
    answer = await run.client.get(f"{run.path}/logs?follow=true", headers=headers)
    assert error_of(answer, 400)["msg"].startswith("Last-Event-ID: ")


async def test_output_expires(api: Api) -> None:
    async with a_run(api.url, api.nats_url, log_ex=1) as run:
        await run.start()
        await run.write(b"secret\n")
        after = await run.finish()  # in January
        shown = await run.client.get(f"{run.path}/logs", headers=after)
        assert result_of(shown) == ""
        assert "expired" in shown.json()["msg"]
        async with run.followed() as followed:
            assert await followed.whole() == ""
        async with run.followed(**EVENTS) as followed:
            assert (await followed.whole()).startswith("event: end\n")


async def test_an_outage_of_the_log_is_bridged(
    nats_server: NatsServer, shared_postgres: PostgresServer
) -> None:
    dsn = shared_postgres.create_database("api_live_outage")
    with scratch_folder() as folder:
        api = Api(folder, nats_server.url, dsn)
        with running(api, projector(folder, nats_server.url, dsn)):
            async with a_run(api.url, nats_server.url) as run:
                await run.start()
                await run.write(b"before\n")
                async with run.followed() as followed:
                    await followed.until("before\n")
                    nats_server.kill()
                    nats_server.start()
                    await surely(lambda: run.write(b"after\n"))
                    await surely(run.finish)
                    assert await followed.whole() == "before\nafter\n"


async def test_a_server_that_stops_does_not_wait_for_followers(
    nats_server: NatsServer, shared_postgres: PostgresServer
) -> None:
    dsn = shared_postgres.create_database("api_live_stop")
    with scratch_folder() as folder:
        api = Api(folder, nats_server.url, dsn)
        with running(api, projector(folder, nats_server.url, dsn)):
            async with a_run(api.url, nats_server.url) as run, run.followed() as followed:
                with prompt(5):
                    assert await asyncio.to_thread(api.stop) == 0
                with pytest.raises(httpx.RemoteProtocolError):  # it is not the end of the output
                    await followed.whole()
        assert "Traceback" not in api.log, api.log


CHUNK = "\r\n0123456789" * 1000
CHUNKS = 3000


@pytest.mark.parametrize("accept", ["text/plain", "text/event-stream"])
async def test_a_reader_that_takes_nothing_is_disconnected(api: Api, run: Run, accept: str) -> None:
    """And nobody is told of an error: the log of the api is looked at in the end."""
    await run.start()
    database = await asyncpg.connect(api.dsn)
    try:
        await database.execute(
            "INSERT INTO logs SELECT 'default', $1, 1, n * $2::bigint, $3"
            " FROM generate_series(0, $4) AS n",
            *(f"{run.actor_id}_exc_0", len(CHUNK), CHUNK.encode(), CHUNKS - 1),
        )
    finally:
        await database.close()
    size = len(CHUNK) * CHUNKS
    after = await run.append(b.finished(0, run.actor_id, log_bytes=size))

    async def readers() -> int:
        text = (await run.client.get("/metrics")).text
        [line] = [line for line in text.splitlines() if line.startswith("abaco_output_readers ")]
        return int(float(line.split()[1]))

    result_of(await run.client.get(run.path, headers=after))
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((LOOPBACK, api.port))
        head = f"GET {run.path}/logs?follow=true HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
        connection.sendall(head.encode())

        async def one_reads() -> bool:
            return await readers() == 1

        async def nobody_reads() -> bool:
            return await readers() == 0

        await eventually(one_reads)
        await eventually(nobody_reads)
        body = drained(connection)
    assert len(body) < size
    if accept == "text/plain":
        assert not body.endswith(b"0\r\n\r\n"), "cut off, the answer must not look whole"
    else:
        assert b"event: end\n" not in body
        assert b"event: dropped\n" in body


def drained(connection: socket.socket) -> bytes:
    """What still comes, up to the end of the connection."""
    body = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            body += part
    return body
