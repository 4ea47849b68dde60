"""HTTP on the wire: limits on the head, and the envelope for requests that cannot be parsed."""

import asyncio
import http
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from abaco_api.http.response_envelope import MEDIA_TYPE, failure_body
from abaco_api.http.response_headers import HEADERS, REQUEST_ID, request_id

ABORT = "abaco.abort"
"""An extension of the scope: abort the connection, with all that is not sent yet."""

CALL = "call"

MAX_HEADER_BYTES = 64 * 1024
MAX_HEAD_BYTES = 2 * MAX_HEADER_BYTES
"""The bytes of an incomplete head, with its separators."""

HEAD_SECONDS = 10.0
CLOSE_SECONDS = 30.0
"""How long a client may take to read the rest after the server has closed."""


class PlainParser:
    """A parser of HTTP/1.1 that ignores offers of an upgrade.

    httptools stops at the end of a head with ``Connection: Upgrade``, before the body. Then a new
    parser reads the head again, without the offer, and all that follows.
    """

    def __init__(self, protocol: "EnvelopeProtocol") -> None:
        self._protocol = protocol
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = True
        self._parser = self._new()

    def feed_data(self, data: bytes) -> None:
        """Parse bytes from the connection.

        Raises:
            httptools.HttpParserError: they are not HTTP, or cannot be served.
        """
        rest = memoryview(data)
        while True:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stopped:
                rest = rest[stopped.args[0] :]
                head = self._head()
                self._parser = self._new()
                self._parser.feed_data(head)
            else:
                return

    def get_http_version(self) -> str:
        """The version of the request whose head was read last."""
        version: str = self._parser.get_http_version()
        return version

    def get_method(self) -> bytes:
        """The method of that request."""
        method: bytes = self._parser.get_method()
        return method

    def should_keep_alive(self) -> bool:
        """Whether another request may follow it."""
        keep: bool = self._parser.should_keep_alive()
        return keep

    def should_upgrade(self) -> bool:
        """Never."""
        return False

    # -- callbacks -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url, self._headers, self._in_head = b"", [], True
        self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        self._url += url
        self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. One after the body is counted and ignored."""
        self._protocol.count(len(name) + len(value))
        if self._in_head:
            self._headers.append((name, value))
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self._parser.should_upgrade():
            if self._parser.get_method() == b"CONNECT":
                raise ValueError("CONNECT")
            return
        codings = [v.strip().lower() for n, v in self._headers if n.lower() == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            raise ValueError("Transfer-Encoding")
        self._in_head = False
        self._protocol.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if not self._parser.should_upgrade():
            self._protocol.on_message_complete()

    # -- parsing a head again ----------------------------------------------------------------------

    def _new(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _head(self) -> bytes:
        """The head, without the offer of an upgrade."""
        version = self._parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self._parser.get_method(), self._url, version)]
        for name, value in self._headers:
            if name.lower() == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(t for t in tokens if t.lower() != b"upgrade")  # noqa: PLW2901
            if name.lower() != b"upgrade":
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])


class EnvelopeProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with limits on the head, and our envelope for malformed requests."""

    head_seconds = HEAD_SECONDS

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.parser: Any = PlainParser(self)
        self._head_bytes = 0
        self._unfinished = 0
        self._heads = 0
        self._in_head = True
        self._nothing_received = True
        self._refused = False
        self._previous: RequestResponseCycle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    # -- the connection --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline of the first head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadlines."""
        for timer in (self._head_timer, self._abort_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes; those after a malformed request are dropped."""
        if self._refused:
            return
        self._nothing_received = False
        heads = self._heads
        if self._in_head:
            self._expect_head()
        super().data_received(data)
        self._unfinished = self._unfinished + len(data) if heads == self._heads else 0
        if self._in_head and self._unfinished > MAX_HEAD_BYTES and not self._refused:
            self._head_bytes = self._unfinished
            self.send_400_response("too many headers")

    # -- the request -----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start to count the bytes of a head."""
        self._head_bytes = 0
        self._heads += 1
        self._expect_head()
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {CALL: self.transport.abort}}

    def on_url(self, url: bytes) -> None:
        """Count a part of the target."""
        self.count(len(url))
        super().on_url(url)

    def on_headers_complete(self) -> None:
        """End the deadline of the head."""
        self._in_head = False
        self._cancel_head_timer()
        self._previous = self._current
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect another head."""
        self._in_head = True
        self._unfinished = 0
        self._cancel_head_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Limit how long the client may take to read the response, if the connection closes.

        If the response came before the end of the body, the rest is dropped, and has as much time
        as the next head.
        """
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_soon()
        elif not self._in_head and self.cycle.response_complete:
            self._expect_head()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._abort_soon()

    def count(self, more: int) -> None:
        """Count bytes of a head, or of headers after a body.

        Raises:
            ValueError: they are too many.
        """
        self._head_bytes += more
        if self._head_bytes > MAX_HEADER_BYTES:
            raise ValueError("too many headers")

    # -- malformed requests -----------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request, after the complete ones before it, and close."""
        if self._in_head:
            complete = self._current
        else:
            complete = self._previous
            if self.pipeline:
                self.pipeline.popleft()
            elif self.cycle.response_started:
                complete = self.cycle
        if complete is not None and not complete.response_complete:
            complete.keep_alive = False
            self._refused = True
            self._cancel_head_timer()
        elif self._head_bytes > MAX_HEADER_BYTES:
            self._refuse(431, "too_large", f"more than {MAX_HEADER_BYTES} bytes of headers")
        else:
            self._refuse(400, "malformed", msg)

    def _refuse(self, status: int, error: str, msg: str) -> None:
        self._refused = True
        self._cancel_head_timer()
        body = failure_body(error, msg)
        headers = (
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *HEADERS,
            (REQUEST_ID, request_id(None)),
        )
        lines = [
            b"HTTP/1.1 %d %s" % (status, http.HTTPStatus(status).phrase.encode()),
            *(b"%s: %s" % header for header in headers),
        ]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()
        self._abort_soon()

    @property
    def _current(self) -> RequestResponseCycle | None:
        """The latest request whose head is complete."""
        return self.cycle

    # -- deadlines -------------------------------------------------------------------------------

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        current = self._current
        if current is not None and not current.response_complete:
            self._expect_head()  # reading is paused until the response before it is sent
        elif self._nothing_received or not self._in_head:
            self.transport.close()
            self._abort_soon()
        else:
            seconds = self.head_seconds
            self._refuse(408, "timeout", f"the head of the request: not whole after {seconds} s")

    def _abort_soon(self) -> None:
        if self._abort_timer is None:
            self._abort_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


def protocol(head_seconds: float) -> type[EnvelopeProtocol]:
    """The protocol class with a deadline for heads."""
    return type("Protocol", (EnvelopeProtocol,), {"head_seconds": head_seconds})
