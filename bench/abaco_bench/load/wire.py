"""Requests over connections that stay open: no more of HTTP than is needed.

A client library's own time would be counted as ours.
"""

import asyncio
import json
from typing import Any, cast

from servers import LOOPBACK


class Wire(asyncio.Protocol):
    """One keep-alive connection, for one request at a time. Made by :func:`connect`."""

    def __init__(self) -> None:
        """Not connected yet."""
        self._transport: asyncio.Transport
        self._came = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no class of ours

    def data_received(self, data: bytes) -> None:
        """A part of an answer; the last one, when it is as long as it says."""
        self._came += data
        head, blank, body = self._came.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if blank and len(body) == int(length):
            self._came = b""
            assert self._answer is not None
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        """Who waits for an answer gets none."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("closed by the api"))

    async def ask(
        self, method: str, path: str, form: str = "", more: str = ""
    ) -> tuple[int, bytes]:
        """Status and body of the answer; ``more`` are whole lines of headers."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\n{more}"
        if form:
            head += f"Content-Length: {len(form)}\r\n"
            head += "Content-Type: application/x-www-form-urlencoded\r\n"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(f"{head}\r\n{form}".encode())
        return await self._answer

    async def result(self, method: str, path: str, form: str = "") -> Any:
        """The ``result`` of a request that must work."""
        status, body = await self.ask(method, path, form)
        assert status in (200, 201), body
        return json.loads(body)["result"]

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


async def connect(port: int) -> Wire:
    """A connection to an api on this machine."""
    _, wire = await asyncio.get_running_loop().create_connection(Wire, LOOPBACK, port)
    return wire
