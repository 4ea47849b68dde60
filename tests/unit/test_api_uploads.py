"""Bodies that are not whole yet: their deadlines, their least rate, and how many there may be."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from abaco_api.http.api_metrics import ApiMetrics
from abaco_api.http.parameters import BODY
from abaco_api.http.request_middleware import ADMISSION, RequestMiddleware, Uploads
from abaco_api.http.response_envelope import failure_of
from abaco_proto.errors import AbacoError
from abaco_telemetry.context import NO_SPANS

WINDOW = 0.05
LONG = 30.0


class Client:
    """A request whose body comes in pieces, and its answer."""

    def __init__(self, app: Any, headers: dict[str, str] | None = None) -> None:
        self._pieces: asyncio.Queue[Message] = asyncio.Queue()
        self._sent: list[Message] = []
        self.asked = 0
        found = {"transfer-encoding": "chunked"} if headers is None else headers
        raw = [(name.encode(), value.encode()) for name, value in found.items()]
        scope = {"type": "http", "method": "POST", "path": "/actors", "headers": raw}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def say(self, body: bytes, *, more: bool = True) -> None:
        self._pieces.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self._pieces.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> tuple[int, Any]:
        async with asyncio.timeout(LONG):
            await self.task
        return self._sent[0]["status"], json.loads(self._sent[1]["body"])

    async def heard(self) -> None:
        """All that was said is taken."""
        async with asyncio.timeout(LONG):
            while not self._pieces.empty() or not self.asked:
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)

    async def _receive(self) -> Message:
        self.asked += 1
        return await self._pieces.get()

    async def _send(self, message: Message) -> None:
        self._sent.append(message)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body, or what is wrong with it."""
    try:
        await scope[ADMISSION].read_body()
    except ClientDisconnect:
        return
    except AbacoError as error:
        await failure_of(error)(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % len(scope[BODY])})


class Stage(Uploads):
    """Reads bodies for an application behind the middleware."""

    def __init__(self, app: Any, **limits: Any) -> None:
        super().__init__(**limits)
        self._middleware = RequestMiddleware(
            app,
            [],
            uploads=self,
            max_requests=100,
            headers=(),
            metrics=ApiMetrics(),
            spans=NO_SPANS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._middleware(scope, receive, send)


def uploads(app: Any = echo, **limits: Any) -> Stage:
    usual = {"limit": 1000, "seconds": LONG, "rate": 0, "most": 10, "most_bytes": 10_000}
    return Stage(app, **{**usual, "window_seconds": WINDOW, **limits})


async def test_a_request_goes_on_when_its_body_is_there() -> None:
    served = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        served.set()

    stage = uploads(app)
    client = Client(stage)
    client.say(b"abc")
    await client.heard()
    assert (stage.count, stage.bytes, served.is_set()) == (1, 3, False)
    client.say(b"de", more=False)
    assert await client.answer() == (200, 5)
    assert (stage.count, stage.bytes) == (0, 0)


@pytest.mark.parametrize("headers", [{}, {"content-length": "0"}, {"content-length": "00"}])
async def test_a_request_without_a_body_is_whole(headers: dict[str, str]) -> None:
    client = Client(uploads(seconds=0), headers)
    client.say(b"", more=False)
    assert await client.answer() == (200, 0)


async def test_a_body_has_a_deadline() -> None:
    stage = uploads(seconds=2 * WINDOW)
    client = Client(stage)
    client.say(b"x" * 900)
    status, answer = await client.answer()
    assert (status, answer["error"]) == (408, "timeout")
    assert "not whole" in answer["msg"]
    assert (stage.count, stage.bytes) == (0, 0)


async def test_a_body_has_a_least_rate_after_a_grace() -> None:
    """However much came before."""
    stage = uploads(rate=int(100 / WINDOW))
    client = Client(stage)
    client.say(b"x" * 500)
    status, answer = await client.answer()
    assert (status, answer["error"]) == (408, "timeout")
    assert "at least 100" in answer["msg"]


async def test_a_body_that_never_pauses_has_a_least_rate_too() -> None:
    stage = uploads(rate=int(100 / WINDOW))
    client = Client(stage)

    async def trickle() -> None:
        while True:
            client.say(b"")
            await asyncio.sleep(0)

    trickling = asyncio.create_task(trickle())
    status, _ = await client.answer()
    trickling.cancel()
    assert status == 408


async def test_of_too_many_the_one_that_was_quiet_for_longest_ends() -> None:
    stage = uploads(most=3)
    clients = []
    for _ in range(3):
        clients.append(Client(stage))
        clients[-1].say(b"x")
        await clients[-1].heard()
    clients[0].say(b"x")
    await clients[0].heard()
    late = Client(stage)
    late.say(b"late")
    status, answer = await clients[1].answer()
    assert (status, answer["error"], stage.count) == (408, "timeout", 3)
    for client in (clients[0], clients[2], late):
        client.say(b"x", more=False)
    assert [(await c.answer())[0] for c in (clients[0], clients[2], late)] == [200, 200, 200]


async def test_they_hold_so_many_bytes_and_no_more() -> None:
    stage = uploads(most_bytes=2000)
    clients = [Client(stage) for _ in range(9)]
    for _ in range(5):
        for client in (client for client in clients if not client.task.done()):
            client.say(b"x" * 150)
            await client.heard()
            assert stage.bytes <= 2000
    ended = [client for client in clients if client.task.done()]
    assert 0 < len(ended) < 9
    assert {(await client.answer())[0] for client in ended} == {408}
    for client in clients:
        client.say(b"", more=False)
    assert {(await client.answer())[0] for client in clients} == {200, 408}
    assert (stage.count, stage.bytes) == (0, 0)


async def test_one_alone_is_bounded_by_its_own_limit() -> None:
    client = Client(uploads(most_bytes=10))
    client.say(b"x" * 900, more=False)
    assert await client.answer() == (200, 900)


async def test_a_body_that_is_too_large_is_not_kept() -> None:
    stage = uploads()
    client = Client(stage)
    client.say(b"x" * 1001)
    await client.heard()
    assert (stage.count, stage.bytes) == (0, 0)
    client.say(b"x" * 5000, more=False)
    status, answer = await client.answer()
    assert (status, answer["error"]) == (413, "too_large")


async def test_a_body_that_is_announced_as_too_large_is_not_asked_for() -> None:
    client = Client(uploads(), {"content-length": "1001", "expect": "100-continue"})
    assert (await client.answer())[0] == 413
    assert client.asked == 0


async def test_a_client_that_leaves_is_forgotten() -> None:
    stage = uploads()
    client = Client(stage)
    client.say(b"x")
    client.leave()
    async with asyncio.timeout(LONG):
        await client.task
    assert (stage.count, stage.bytes) == (0, 0)
