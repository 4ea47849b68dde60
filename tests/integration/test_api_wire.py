"""HTTP byte by byte: offers of other protocols, bodies in pieces, and clients that are slow."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_stage import Api, error_of, result_of, running
from servers import LOOPBACK, NatsServer, scratch_folder

NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
SECONDS = 20.0
"""For what comes at once."""

CURL = shutil.which("curl")
SLOW_SECONDS = 3.0
MOST = 5


def one_api(folder: Path, **settings: Any) -> Iterator[Api]:
    nats = NatsServer(folder)
    api = Api(folder, nats.url, NO_DATABASE, append_timeout_seconds=20, **settings)
    try:
        nats.start()
        with running(api):
            result_of(httpx.post(f"{api.url}/actors", data={"image": "a/b", "name": "foo"}), 201)
            yield api
            assert "Traceback" not in api.log, api.log
    finally:
        nats.kill()


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with scratch_folder() as folder:
        yield from one_api(folder)


@pytest.fixture(scope="module")
def slow_api() -> Iterator[Api]:
    """One that does not wait long, and takes few requests."""
    settings = {
        "head_seconds": SLOW_SECONDS,
        "body_seconds": SLOW_SECONDS,
        "max_requests": MOST,
        "max_body_bytes": 100_000,
    }
    with scratch_folder() as folder:
        yield from one_api(folder, **settings)


class Wire:
    """A connection, and the answers that came on it."""

    def __init__(self, api: Api) -> None:
        self._socket = socket.create_connection((LOOPBACK, api.port), timeout=SECONDS)
        self._come = b""

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._socket.sendall(part)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """The next answer: status, headers, body."""
        while b"\r\n\r\n" not in self._come:
            self._more()
        head, _, self._come = self._come.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}
        if first.split()[1] == "100":
            return 100, headers, None
        size = int(headers["content-length"])
        while len(self._come) < size:
            self._more()
        body, self._come = self._come[:size], self._come[size:]
        return int(first.split()[1]), headers, json.loads(body)

    def ends(self) -> bool:
        """Whether the server closes, and has nothing more to say."""
        return self._come == b"" and self._socket.recv(1) == b""

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> None:
        part = self._socket.recv(65_536)
        assert part, self._come
        self._come += part


@pytest.fixture
def wire(api: Api) -> Iterator[Wire]:
    wire = Wire(api)
    yield wire
    wire.close()


def head(target: str, body: bytes, *more: bytes, method: str = "PUT") -> bytes:
    first = f"{method} {target} HTTP/1.1\r\nHost: x\r\n".encode()
    return first + FORM + b"Content-Length: %d\r\n" % len(body) + b"".join(more) + b"\r\n"


OFFERS = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    b"Upgrade: TLS/1.2, something\r\nConnection: keep-alive, Upgrade\r\n",
]


# -- offers of another protocol ------------------------------------------------------------------


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("together", [True, False])
def test_an_offer_is_ignored_and_the_body_read(wire: Wire, offer: bytes, together: bool) -> None:  # noqa: FBT001
    body = b"description=%d" % (2 * OFFERS.index(offer) + together)
    whole = head("/actors/foo_0", body, offer)
    wire.send(whole + body) if together else wire.send(whole, body[:3], body[3:])
    status, headers, answer = wire.answer()
    assert (status, answer["result"]["description"]) == (200, body.decode()[12:])
    assert "upgrade" not in headers
    wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert wire.answer()[0] == 200


@pytest.mark.parametrize("together", [True, False])
def test_an_offer_with_a_body_in_chunks(wire: Wire, together: bool) -> None:  # noqa: FBT001
    whole = (
        b"PUT /actors/foo_0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        + FORM
        + OFFERS[0]
        + b"\r\n"
    )
    chunks = b"c\r\ndescription=\r\n3\r\none\r\n0\r\n\r\n"
    wire.send(whole + chunks) if together else wire.send(whole, chunks[:20], chunks[20:])
    status, _, answer = wire.answer()
    assert (status, answer["result"]["description"]) == (200, "one")


def test_offers_one_behind_the_other(wire: Wire) -> None:
    requests = [
        head("/actors/foo_0", b"description=%d" % n, OFFERS[n % 3]) + b"description=%d" % n
        for n in range(20)
    ]
    requests.append(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + OFFERS[1] + b"\r\n")
    wire.send(b"".join(requests))
    found = [wire.answer() for _ in requests]
    assert [answer["result"]["description"] for _, _, answer in found[:-1]] == [
        str(n) for n in range(20)
    ]
    assert found[-1][0] == 200


@pytest.mark.skipif(CURL is None, reason="there is no curl: the bytes it sends are tested above")
def test_curl_with_http2(api: Api) -> None:
    def curl(*arguments: str) -> Any:
        argv = [str(CURL), "--silent", "--http2", "--max-time", str(SECONDS), *arguments]
        return json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)

    url = f"{api.url}/actors/foo_0"
    assert curl("-X", "PUT", "-d", "description=new", url)["result"]["description"] == "new"
    curl("-d", "num=3", f"{url}/workers")
    assert curl("-X", "PUT", "-d", "description=newer", url)["result"]["min_workers"] == 3


@pytest.mark.parametrize(
    "request_",
    [
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT /actors HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PUT /actors/foo_0 HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"PUT /actors/foo_0 HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        b"PUT /actors/foo_0 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0",
        b"PUT /actors/foo_0 HTTP/1.1\r\n" + OFFERS[0] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_cannot_be_read_whole_is_an_error(wire: Wire, request_: bytes) -> None:
    wire.send(request_)
    status, headers, answer = wire.answer()
    assert (status, answer["status"], headers["connection"]) == (400, "error", "close")
    assert wire.ends()


def test_what_is_not_read_whole_is_not_carried_out(api: Api) -> None:
    """Not even where nobody looks at the body."""
    result_of(httpx.post(f"{api.url}/actors", data={"image": "a/b", "name": "kept"}), 201)
    wire = Wire(api)
    wire.send(b"DELETE /actors/kept_0 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert wire.answer()[0] == 400
    wire.close()
    wire = Wire(api)
    wire.send(b"DELETE /actors/kept_0 HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 999_999)
    wire.send(b"x" * 9_000_000)
    assert wire.answer()[0] == 413
    wire.close()
    result_of(httpx.put(f"{api.url}/actors/kept_0", data={"description": "there"}))


def test_what_was_whole_is_answered_before_what_is_not(wire: Wire) -> None:
    body = b"description=whole"
    wire.send(head("/actors/foo_0", body) + body + b"nonsense\r\n\r\n")
    status, headers, answer = wire.answer()
    assert (status, answer["result"]["description"]) == (200, "whole")
    assert headers["connection"] == "close"
    assert wire.ends()


def test_headers_behind_a_body_are_not_heeded(wire: Wire) -> None:
    wire.send(
        b"PUT /actors/foo_0 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
        + FORM
        + b"\r\nd\r\ndescription=x\r\n0\r\nContent-Type: text/plain\r\nIdempotency-Key:\r\n\r\n"
    )
    assert wire.answer()[0] == 200


def test_a_header_without_an_end_is_not_kept(wire: Wire) -> None:
    wire.send(b"GET /healthz HTTP/1.1\r\nX: ")
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(ConnectionError))
        for _ in range(1000):
            wire.send(b"a" * 65_536)
    # The answer may be lost with what nobody read; that the connection ends is what counts.


def test_a_body_that_is_asked_for(wire: Wire) -> None:
    body = b"description=asked"
    wire.send(head("/actors/foo_0", body, b"Expect: 100-continue\r\n"))
    assert wire.answer()[0] == 100
    wire.send(body)
    status, _, answer = wire.answer()
    assert (status, answer["result"]["description"]) == (200, "asked")


# -- slow clients --------------------------------------------------------------------------------


def test_idle_uploads_hold_up_nobody(slow_api: Api) -> None:
    uploads = [Wire(slow_api) for _ in range(3 * MOST)]
    began = time.monotonic()
    for n, wire in enumerate(uploads):
        chunked = b"PUT /actors/foo_0 HTTP/1.1\r\n" + FORM + b"Transfer-Encoding: chunked\r\n\r\n"
        wire.send(chunked if n % 2 else head("/actors/foo_0", b"x" * 99), b"1\r\nd\r\n")
    for _ in range(3):
        result_of(httpx.put(f"{slow_api.url}/actors/foo_0", data={"description": "served"}))
    for wire in uploads:
        status, headers, answer = wire.answer()
        assert (status, answer["error"], headers["connection"]) == (408, "timeout", "close")
        assert wire.ends()
        wire.close()
    assert time.monotonic() - began >= SLOW_SECONDS
    answer = httpx.get(f"{slow_api.url}/actors/foo_0")
    error_of(answer, 503)  # there is no Postgres: but it is not 429


@pytest.mark.parametrize("begin", [b"G", b"GET /healthz HTTP/1.1\r\nX: a", b"\r\n"])
def test_a_head_has_a_deadline(slow_api: Api, begin: bytes) -> None:
    for before in (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"):
        wire = Wire(slow_api)
        if before:
            wire.send(before)
            assert wire.answer()[0] == 200
        wire.send(begin)
        status, headers, answer = wire.answer()
        assert (status, answer["error"], headers["connection"]) == (408, "timeout", "close")
        assert wire.ends()
        wire.close()


def test_a_connection_that_says_nothing_is_closed(slow_api: Api) -> None:
    wire = Wire(slow_api)
    assert wire.ends()
    wire.close()


def test_a_body_of_many_pieces_is_taken(slow_api: Api) -> None:
    wire = Wire(slow_api)
    body = b"description=" + b"y" * 9_000
    wire.send(head("/actors/foo_0", body), *(body[at : at + 100] for at in range(0, 9_100, 100)))
    assert wire.answer()[0] == 200
    wire.close()
