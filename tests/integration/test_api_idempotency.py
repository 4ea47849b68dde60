"""Requests with a key to processes that are killed, over a NATS that is killed, too.

``ABACO_TEST_KEYS=1000`` runs the whole of it: a thousand requests, each sent three times at once.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.names import inbox_filter
from api_stage import Api, result_of, running
from servers import NatsServer

KEYS = int(os.environ.get("ABACO_TEST_KEYS", "150"))
COPIES = 3
AT_ONCE = 100
NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"
PAUSE_SECONDS = 0.05

Told = tuple[int, bytes, str]


class Clients:
    """Clients of two processes, who try again until they are answered."""

    def __init__(self, apis: list[Api]) -> None:
        self.apis = apis
        self.answered = 0
        self.half = asyncio.Event()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=AT_ONCE)
        self.http = [httpx.AsyncClient(base_url=a.url, timeout=30, limits=limits) for a in apis]
        self._room = asyncio.Semaphore(AT_ONCE)

    async def send(self, n: int, copy: int = 0) -> Told:
        """The answer to the n-th request, of whichever process."""
        async with self._room:
            at = n + copy
            while (answer := await self._try(at, n)) is None:
                at += 1
                await asyncio.sleep(PAUSE_SECONDS)
        self.answered += 1
        if self.answered >= KEYS * COPIES // 2:
            self.half.set()
        return answer

    async def _try(self, at: int, n: int) -> Told | None:
        headers, form = {"Idempotency-Key": f"key {n}"}, {"message": f"message {n}"}
        try:
            answer = await self.http[at % 2].post(
                f"/actors/foo_{n % 4}/messages", data=form, headers=headers
            )
        except httpx.TransportError:
            return None
        if answer.status_code in (429, 503):
            assert answer.headers["Retry-After"]
            return None
        result_of(answer)
        return answer.status_code, answer.content, answer.headers["Abaco-Sequence"]

    async def close(self) -> None:
        for client in self.http:
            await client.aclose()


@pytest.fixture
async def clients(tmp_path: Path, nats_url: str) -> AsyncGenerator[Clients, None]:
    apis = [Api(tmp_path, nats_url, NO_DATABASE) for _ in range(2)]
    with running(*apis):
        clients = Clients(apis)
        for n in range(4):
            created = await clients.http[n % 2].post(
                "/actors", data={"image": "a/b", "name": "foo"}
            )
            result_of(created, 201)
        yield clients
        await clients.close()
        for api in apis:
            assert "Traceback" not in api.log, api.log


async def messages(nats_url: str) -> list[Recorded]:
    connection = Connection(nats_url, name="test")
    await connection.open()
    log = JetStreamEventLog(connection)
    found = [r async for batch in log.read([inbox_filter("default", "*")]) for r in batch]
    await connection.close()
    return found


async def test_each_of_many_requests_three_times_and_one_process_killed(
    clients: Clients, nats_url: str
) -> None:
    sending = [
        asyncio.create_task(clients.send(n, copy)) for n in range(KEYS) for copy in range(COPIES)
    ]
    await clients.half.wait()
    clients.apis[0].kill()
    answers = await asyncio.gather(*sending)

    by_key = [{*answers[COPIES * n : COPIES * (n + 1)]} for n in range(KEYS)]
    assert [len(told) for told in by_key] == [1] * KEYS
    found = await messages(nats_url)
    said = Counter(r.event.message for r in found if isinstance(r.event, ev.MessageReceived))
    assert said == {f"message {n}": 1 for n in range(KEYS)}
    assert {r.sequence for r in found} == {int(told[2]) for [told] in by_key}

    clients.apis[0].start()
    assert await asyncio.gather(*[clients.send(n, 1) for n in range(KEYS)]) == [
        told for [told] in by_key
    ]
    assert len(await messages(nats_url)) == KEYS


async def test_a_nats_that_is_killed_forgets_no_answer(
    clients: Clients, nats_server: NatsServer
) -> None:
    first = await asyncio.gather(*[clients.send(n) for n in range(20)])
    nats_server.kill()
    waiting = [asyncio.create_task(clients.send(n, 1)) for n in range(30)]
    await asyncio.sleep(0)
    nats_server.start()
    answers = await asyncio.gather(*waiting)
    assert answers[:20] == first
    assert len(await messages(nats_server.url)) == 30


async def test_many_registrations_with_one_key_are_one(clients: Clients) -> None:
    async def register(n: int, key: str) -> httpx.Response:
        return await clients.http[n % 2].post(
            "/actors", data={"image": "a/b", "name": "bar"}, headers={"Idempotency-Key": key}
        )

    answers = await asyncio.gather(*[register(n, f"key {n % 5}") for n in range(40)])
    ids = [{result_of(answers[n], 201)["id"] for n in range(k, 40, 5)} for k in range(5)]
    assert sorted(map(sorted, ids)) == [[f"bar_{n}"] for n in range(5)]
