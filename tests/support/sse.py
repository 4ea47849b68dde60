"""A reader of ``text/event-stream`` on a bare socket."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from deadlines import LIMIT_SECONDS
from servers import LOOPBACK


class Sent(msgspec.Struct, frozen=True):
    """One event of a stream."""

    id: int
    type: str
    data: Any


class Refused(Exception):
    """The answer is no stream."""


class Reader:
    """One connection. ``last_id`` is where another would go on."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, last_id: int | None
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.last_id = last_id
        self.heartbeats = 0
        self.ended = False
        self._text = b""

    async def events(self) -> list[Sent]:
        """What comes with the next chunk; nothing when the stream has ended."""
        size = int(await self.reader.readline() or b"0", 16)
        chunk = await self.reader.readexactly(size)
        await self.reader.readline()
        self.ended = size == 0
        self._text += chunk
        *whole, self._text = self._text.split(b"\n\n")
        return list(self._parsed(whole))

    async def all(self, seconds: float = LIMIT_SECONDS) -> AsyncGenerator[Sent, None]:
        """Events until the stream ends; each chunk must come within ``seconds``."""
        while not self.ended:
            async with asyncio.timeout(seconds):
                found = await self.events()
            for event in found:
                yield event

    async def take(self, count: int, seconds: float = LIMIT_SECONDS) -> list[Sent]:
        """The next so many."""
        taken: list[Sent] = []
        async with asyncio.timeout(seconds):
            while len(taken) < count:
                assert not self.ended, taken
                taken += await self.events()
        return taken

    def _parsed(self, blocks: list[bytes]) -> Iterator[Sent]:
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
            if b"id" in fields:
                self.last_id = int(fields[b"id"])
            if b"" in fields:
                self.heartbeats += 1
            if b"data" in fields:
                kind, data = fields[b"event"].decode(), json.loads(fields[b"data"])
                yield Sent(int(fields[b"id"]), kind, data)


@asynccontextmanager
async def stream(
    port: int, path: str = "/events", *, last_id: int | None = None, limit: int = 2**16
) -> AsyncGenerator[Reader, None]:
    """A stream that was begun; cut at the end of the block. ``limit`` is the reader's buffer."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=limit)
    resume = "" if last_id is None else f"Last-Event-ID: {last_id}\r\n"
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{resume}\r\n"
    writer.write(request.encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Refused(head)
        assert b"content-type: text/event-stream" in head, head
        yield Reader(reader, writer, last_id)
    finally:
        writer.transport.abort()
