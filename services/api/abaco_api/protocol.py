"""HTTP on the wire: what is wrong before there is a request is answered in the envelope, too."""

import http
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from abaco_api.envelope import MEDIA_TYPE, failure_body

ABORT = "abaco.abort"
"""An extension of the scope: cut the connection, whatever is still to be sent."""

CALL = "call"

MAX_HEADER_BYTES = 64 * 1024


class EnvelopeProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a limit on headers and our words for what cannot be read."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._head_bytes = 0

    def on_message_begin(self) -> None:
        """Count from the start of each request."""
        self._head_bytes = 0
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {CALL: self.transport.abort}}

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read, and close."""
        if self._head_bytes > MAX_HEADER_BYTES:
            self._refuse(431, "too_large", f"more than {MAX_HEADER_BYTES} bytes of headers")
        else:
            self._refuse(400, "malformed", msg)

    def _count(self, more: int) -> None:
        self._head_bytes += more
        if self._head_bytes > MAX_HEADER_BYTES:
            raise ValueError("too many headers")

    def _refuse(self, status: int, error: str, msg: str) -> None:
        body = failure_body(error, msg)
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
            f"content-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
