"""Limits: the capacity of an inbox, and requests in flight."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

import builders as b
from abaco_api.api_errors import InboxFull, TooMany
from abaco_api.api_settings import ApiSettings
from abaco_api.commands.inbox import InboxCapacity
from abaco_api.dependencies import assemble
from abaco_api.http.api_metrics import ApiMetrics
from abaco_api.http.application import create_app
from abaco_api.http.request_middleware import ADMISSION, RequestMiddleware, Uploads
from abaco_api.http.response_envelope import failure_of
from abaco_proto import events as ev
from abaco_proto.errors import Unavailable
from abaco_telemetry.context import NO_SPANS
from fakes import InMemoryEventLog, InMemoryOutputLog
from servers import LOOPBACK, free_port


class Models:
    """Read models that know how many executions have ended, or are away."""

    def __init__(self) -> None:
        self.complete: int | None = None
        self.asked = 0

    async def executions(self, actor_id: str, limit: int, offset: int) -> dict[str, int]:
        self.asked += 1
        if self.complete is None:
            raise Unavailable("away")
        return {
            "total_complete": self.complete,
            "total_error": 1,
            "total_halted": 1,
            "total_purged": 1,
        }


class Stage:
    def __init__(self) -> None:
        self.log = InMemoryEventLog()
        self.models = Models()
        models: Any = self.models
        self.capacity = InboxCapacity(self.log, models, "default", 10)

    async def has_capacity(self, next_ordinal: int) -> bool:
        """As the inbox asks: by what is known, and once more when that was not enough."""
        for _ in range(2):
            try:
                self.capacity.check("foo_0", next_ordinal)
            except InboxFull:
                await self.capacity.refresh("foo_0")
            else:
                return True
        return False


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_an_inbox_takes_so_many(stage: Stage) -> None:
    assert await stage.has_capacity(9)
    assert not await stage.has_capacity(10)
    with pytest.raises(InboxFull, match="10 messages wait for foo_0, at most 10"):
        stage.capacity.check("foo_0", 10)


async def test_what_was_handed_out_waits_no_more(stage: Stage) -> None:
    for n in (3, 4):
        await stage.log.append(b.envelope_of(b.assigned(n)))
    assert await stage.has_capacity(14)
    assert not await stage.has_capacity(15)


async def test_what_was_purged_waits_no_more(stage: Stage) -> None:
    purged = ev.InboxPurged(actor_id="foo_0", up_to_ordinal=6)
    await stage.log.append(b.envelope_of(purged))
    assert await stage.has_capacity(16)
    assert not await stage.has_capacity(17)


async def test_what_is_tried_again_does_not_make_an_inbox_full(stage: Stage) -> None:
    """A person has a message of long ago tried again, and nobody sends anything meanwhile."""
    await stage.log.append(b.envelope_of(b.assigned(0, attempt=4)))
    assert not await stage.has_capacity(500)
    stage.models.complete = 497
    stage.capacity._asked_at.clear()
    assert await stage.has_capacity(500)


async def test_what_is_known_is_not_forgotten_by_a_retry(stage: Stage) -> None:
    await stage.log.append(b.envelope_of(b.assigned(99)))
    assert await stage.has_capacity(100)
    await stage.has_capacity(110)
    await stage.log.append(b.envelope_of(b.assigned(0, attempt=4)))
    assert not await stage.has_capacity(110)
    assert await stage.has_capacity(109)


async def test_the_read_models_are_asked_seldom(stage: Stage) -> None:
    for _ in range(50):
        assert not await stage.has_capacity(10)
    assert stage.models.asked == 1


# -- requests in flight --------------------------------------------------------------------------


class App:
    """Begins an answer when it may, and ends it when it may."""

    def __init__(self) -> None:
        self.begin = asyncio.Event()
        self.end = asyncio.Event()
        self.serving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope[ADMISSION].enter()
        except TooMany as error:
            await failure_of(error)(scope, receive, send)
            return
        self.serving += 1
        await self.begin.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self.end.wait()
        await send({"type": "http.response.body"})
        self.serving -= 1


def admission_of(app: Any, most: int) -> RequestMiddleware:
    uploads = Uploads(limit=1000, seconds=1, rate=0, most=10, most_bytes=1000)
    return RequestMiddleware(
        app,
        [],
        uploads=uploads,
        max_requests=most,
        headers=(),
        metrics=ApiMetrics(),
        spans=NO_SPANS,
    )


async def status(app: Any, path: str = "/actors") -> int:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "path": path, "method": "GET", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    code: int = sent[0]["status"]
    return code


async def test_a_request_counts_until_its_answer_begins() -> None:
    app = App()
    admission = admission_of(app, 2)
    streams = [asyncio.create_task(status(admission)) for _ in range(2)]
    while app.serving < 2:
        await asyncio.sleep(0)
    assert await status(admission) == 429
    app.begin.set()
    while admission.unanswered:
        await asyncio.sleep(0)
    app.end.set()
    assert await status(admission) == 200
    assert [await stream for stream in streams] == [200, 200]
    assert admission.unanswered == 0


async def test_probes_are_always_answered() -> None:
    nobody = f"postgresql://abaco@{LOOPBACK}:{free_port()}/abaco"
    settings = ApiSettings(postgres_dsn=nobody, max_requests=1)
    tenants = assemble(settings, InMemoryEventLog(), InMemoryOutputLog())
    app = create_app(tenants)
    app.unanswered = 1
    assert await status(app) == 429
    assert await status(app, "/healthz") == 200
    assert await status(app, "/readyz") == 503  # there is no Postgres
    tenants.pool.close()


async def test_a_request_whose_body_is_read_does_not_count() -> None:
    counted: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ADMISSION].enter()
        counted.append(admission.unanswered)
        await scope[ADMISSION].read_body()
        counted.append(admission.unanswered)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        counted.append(admission.unanswered)
        return {"type": "http.request", "body": b"x"}

    async def send(_: Message) -> None:
        counted.append(admission.unanswered)

    admission = admission_of(app, 1)
    headers = [(b"content-length", b"1")]
    scope = {"type": "http", "path": "/", "method": "PUT", "headers": headers, "query_string": b""}
    await admission(scope, receive, send)
    assert counted == [1, 0, 1, 0]


async def test_a_request_that_fails_counts_no_more() -> None:
    async def broken(scope: Scope, _: Receive, __: Send) -> None:
        scope[ADMISSION].enter()
        raise RuntimeError

    admission = admission_of(broken, 1)
    with pytest.raises(RuntimeError):
        await status(admission)
    assert admission.unanswered == 0
