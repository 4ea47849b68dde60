"""The envelope around whatever comes of a request, down to what the server under it is told."""

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from abaco_api.api_settings import ApiSettings
from abaco_api.contract.operation import Endpoint, Operation
from abaco_api.dependencies import Service, assemble
from abaco_api.http import application as app_module
from abaco_api.http.application import create_app
from abaco_api.http.response_envelope import success
from abaco_proto.errors import Unavailable
from fakes import InMemoryEventLog, InMemoryOutputLog
from servers import LOOPBACK, free_port

WHAT_TO_DO = "this is a bug: report it with the traceback that follows"


class Broken(Response):
    """Begins an answer, and fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__(None)
        self._error = error

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise self._error


def raising(error: Exception) -> Endpoint:
    async def endpoint(_: Service, __: Request) -> Response:
        raise error

    return endpoint


def breaking(error: Exception) -> Endpoint:
    async def endpoint(_: Service, __: Request) -> Response:
        return Broken(error)

    return endpoint


async def works(_: Service, request: Request) -> Response:
    return success(dict(request.path_params))


ENDPOINTS = {
    "/works/{actor_id}": works,
    "/away": raising(Unavailable("no log")),
    "/gone": raising(ClientDisconnect()),
    "/bug": raising(ZeroDivisionError("one's own")),
    "/late/away": breaking(Unavailable("no log")),
    "/late/bug": breaking(ZeroDivisionError("one's own")),
}


@pytest.fixture
async def app(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ASGIApp]:
    operations = [
        Operation(
            method=method, path=path, endpoint=endpoint, kind="query", summary="", result=None
        )
        for path, endpoint in ENDPOINTS.items()
        for method in ("GET", "PUT")
    ]
    monkeypatch.setattr(app_module, "OPERATIONS", tuple(operations))
    nobody = f"postgresql://abaco@{LOOPBACK}:{free_port()}/abaco"
    tenants = assemble(
        ApiSettings(postgres_dsn=nobody, max_requests=1),
        InMemoryEventLog(),
        InMemoryOutputLog(),
    )
    yield create_app(tenants)
    tenants.pool.close()


class Told(msgspec.Struct):
    """What the server is told of a request: the messages, and the error that came out."""

    messages: list[Message]
    error: Exception | None = None

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.messages[0]["headers"]}

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.json.decode(self.messages[1]["body"])
        return body


async def ask(app: ASGIApp, path: str, method: str = "GET") -> Told:
    told = Told([])

    async def send(message: Message) -> None:
        told.messages.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [],
        "server": ("x", 80),
        "scheme": "http",
    }
    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - the server sees them all
        told.error = error
    return told


async def test_what_works(app: ASGIApp) -> None:
    told = await ask(app, "/works/foo_0")
    assert (told.status, told.error) == (200, None)
    assert told.body["result"] == {"actor_id": "foo_0"}
    assert (await ask(app, "/works/foo_0", "HEAD")).status == 200


async def test_slashes_more_or_less_are_the_same_path(app: ASGIApp) -> None:
    for path in ("//works/foo_0", "/works///foo_0/", "/works/foo_0//"):
        assert (await ask(app, path)).body["result"] == {"actor_id": "foo_0"}


async def test_no_such_path(app: ASGIApp) -> None:
    for path in ("/nowhere//else/", "/works", "/works/foo_0/more", "/"):
        told = await ask(app, path)
        assert (told.status, told.error, told.body["error"]) == (404, None, "not_found")
    told = await ask(app, "/nowhere//else/")
    assert told.body["msg"] == "there is nothing at '/nowhere/else'"


async def test_no_such_method(app: ASGIApp) -> None:
    told = await ask(app, "/works/foo_0", "DELETE")
    assert (told.status, told.error, told.body["error"]) == (405, None, "method_not_allowed")
    allowed = told.headers["allow"]
    assert set(allowed.split(", ")) == {"GET", "HEAD", "PUT"}
    assert told.body["msg"] == f"DELETE is not among the methods here: {allowed}"
    assert (await ask(app, "/openapi.json", "PUT")).headers["allow"] in ("GET, HEAD", "HEAD, GET")


async def test_an_error_of_ours_is_an_answer(app: ASGIApp) -> None:
    told = await ask(app, "/away")
    assert (told.status, told.error) == (503, None)
    assert told.headers["retry-after"] == "1"
    assert (told.body["error"], told.body["msg"]) == ("unavailable", "no log")
    told = await ask(app, "/gone")
    assert (told.status, told.error, told.body["error"]) == (400, None, "malformed")


async def test_a_bug_is_answered_with_a_number_and_told_to_the_server(
    app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    told = await ask(app, "/bug")
    assert told.status == 500
    assert told.body["error"] == "internal"
    [number] = re.findall("^internal error ([0-9a-f]{32})$", told.body["msg"])
    [line] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert line.getMessage() == f"internal error {number}: ZeroDivisionError; {WHAT_TO_DO}"
    assert isinstance(told.error, ZeroDivisionError)


async def test_after_its_beginning_nothing_else_is_answered(
    app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/late/bug", "/late/away"):
        told = await ask(app, path)
        assert [message["type"] for message in told.messages] == ["http.response.start"]
        assert told.error is not None
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert [re.sub("[0-9a-f]{32}", "N", line) for line in lines] == [
        f"internal error N: ZeroDivisionError; {WHAT_TO_DO}",
        f"internal error N: RuntimeError; {WHAT_TO_DO}",
    ]


async def test_whatever_comes_of_a_request_it_counts_no_more(app: ASGIApp) -> None:
    for path in (*ENDPOINTS, "/nowhere"):
        await ask(app, path)
    assert (await ask(app, "/works/foo_0")).status == 200
