"""Requests over connections that stay open: no more of HTTP than is needed.

A client library's own time would be counted as ours.
"""

import asyncio
import json
from typing import Any

from servers import LOOPBACK


class Wire:
    """One keep-alive connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Made by :func:`connect`."""
        self._reader = reader
        self._writer = writer

    async def ask(self, method: str, path: str, form: str = "") -> tuple[int, bytes]:
        """Status and body of the answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\n"
        if form:
            head += f"Content-Length: {len(form)}\r\n"
            head += "Content-Type: application/x-www-form-urlencoded\r\n"
        self._writer.write(f"{head}\r\n{form}".encode())
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(answer[9:12]), await self._reader.readexactly(length)

    async def result(self, method: str, path: str, form: str = "") -> Any:
        """The ``result`` of a request that must work."""
        status, body = await self.ask(method, path, form)
        assert status in (200, 201), body
        return json.loads(body)["result"]

    def close(self) -> None:
        """Let go."""
        self._writer.close()


async def connect(port: int) -> Wire:
    """A connection to an api on this machine."""
    return Wire(*await asyncio.open_connection(LOOPBACK, port))
