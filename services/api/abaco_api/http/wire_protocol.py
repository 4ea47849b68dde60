"""HTTP on the wire: what is wrong before there is a request is answered in the envelope, too."""

import asyncio
import http
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from abaco_api.http.response_envelope import MEDIA_TYPE, failure_body

ABORT = "abaco.abort"
"""An extension of the scope: cut the connection, whatever is still to be sent."""

CALL = "call"

MAX_HEADER_BYTES = 64 * 1024
MAX_HEAD_BYTES = 2 * MAX_HEADER_BYTES
"""Of a head that is not whole, separators included."""

HEAD_SECONDS = 10.0
CLOSE_SECONDS = 30.0
"""A connection that is closed has so long to take what was sent."""


class PlainParser:
    """A parser of HTTP/1.1 alone: what a client offers beside it is ignored.

    httptools stops at the end of a head with ``Connection: Upgrade``, without its body. Then the
    head is read again by a new parser, without the offer, and all that follows is read as usual.
    """

    def __init__(self, protocol: "EnvelopeProtocol") -> None:
        self._protocol = protocol
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = True
        self._parser = self._new()

    def feed_data(self, data: bytes) -> None:
        """Read what came.

        Raises:
            httptools.HttpParserError: it is not HTTP, or nothing that can be served.
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
        """Its method."""
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
        """A header; one behind the body is counted, and not heeded."""
        self._protocol.count(len(name) + len(value))
        if self._in_head:
            self._headers.append((name, value))
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
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
        """The request is whole."""
        if not self._parser.should_upgrade():
            self._protocol.on_message_complete()

    # -- the second reading ----------------------------------------------------------------------

    def _new(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _head(self) -> bytes:
        """The head that was read, without the offer."""
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
    """uvicorn's protocol, with limits on the head and our words for what cannot be read."""

    head_seconds = HEAD_SECONDS

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.parser: Any = PlainParser(self)
        self._head_bytes = 0
        self._unfinished = 0
        self._heads = 0
        self._in_head = True
        self._silent = True
        self._refused = False
        self._before: RequestResponseCycle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._cut: asyncio.TimerHandle | None = None

    # -- the connection --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first head, within its time."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        for timer in (self._late, self._cut):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came; nothing behind what could not be read."""
        if self._refused:
            return
        self._silent = False
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
        """Count from the start of each request."""
        self._head_bytes = 0
        self._heads += 1
        self._expect_head()
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {CALL: self.transport.abort}}

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self.count(len(url))
        super().on_url(url)

    def on_headers_complete(self) -> None:
        """The head came in time."""
        self._in_head = False
        self._forget_head()
        self._before = self._current
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next that comes is another head."""
        self._in_head = True
        self._unfinished = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """What was sent must be taken within reason."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._cut_soon()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for long: close."""
        super().timeout_keep_alive_handler()
        self._cut_soon()

    def count(self, more: int) -> None:
        """Count bytes of a head, or of headers behind a body.

        Raises:
            ValueError: they are too many.
        """
        self._head_bytes += more
        if self._head_bytes > MAX_HEADER_BYTES:
            raise ValueError("too many headers")

    # -- what cannot be read ---------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read, and close; what was whole before it is answered first."""
        if self._in_head:
            whole = self._current
        else:
            whole = self._before
            if self.pipeline:
                self.pipeline.popleft()
            elif self.cycle.response_started:
                whole = self.cycle
        if whole is not None and not whole.response_complete:
            whole.keep_alive = False
            self._refused = True
            self._forget_head()
        elif self._head_bytes > MAX_HEADER_BYTES:
            self._refuse(431, "too_large", f"more than {MAX_HEADER_BYTES} bytes of headers")
        else:
            self._refuse(400, "malformed", msg)

    def _refuse(self, status: int, error: str, msg: str) -> None:
        self._refused = True
        self._forget_head()
        body = failure_body(error, msg)
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
            f"content-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._cut_soon()

    @property
    def _current(self) -> RequestResponseCycle | None:
        """The latest request whose head was whole."""
        return self.cycle

    # -- deadlines -------------------------------------------------------------------------------

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _forget_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _head_is_late(self) -> None:
        self._late = None
        if self.transport.is_closing():
            return
        current = self._current
        if current is not None and not current.response_complete:
            self._expect_head()  # reading waits for the answer before it
        elif self._silent:
            self.transport.close()
        else:
            seconds = self.head_seconds
            self._refuse(408, "timeout", f"the head of the request: not whole after {seconds} s")

    def _cut_soon(self) -> None:
        if self._cut is None:
            self._cut = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


def protocol(head_seconds: float) -> type[EnvelopeProtocol]:
    """The protocol with a deadline for heads."""
    return type("Protocol", (EnvelopeProtocol,), {"head_seconds": head_seconds})
