"""Pages of long lists: bounded by count and by bytes, encoded and sent in pieces.

A page is read piece by piece, each with a query of its own, and is never one string. Most pages
are one piece. Only so many longer ones are in memory at once, however many are asked for; a page
leaves it as its reader takes it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from abaco_api.domain.views import Row
from abaco_api.http.http_errors import TooMany
from abaco_api.http.response_envelope import MEDIA_TYPE, REQUEST_DONE, success_body
from abaco_api.streams.stream_writer import Stalled, StreamWriter, send_until_gone
from abaco_proto.errors import Unavailable

PAGE_BYTES = 8 * 1024 * 1024
"""A page ends behind the item that reaches this; an item alone may be longer."""

PIECE_ROWS, FEW_ROWS = 256, 8
LONG_ANSWERS, LONG_OUTPUTS = 4, 32
"""So many pages, and outputs, of more than one piece a process sends at once: an output is read as
it is sent, so one takes less memory.
"""

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode

Fetch = Callable[[Row | None, int], Awaitable[Sequence[Row]]]
"""Gives at most so many rows behind one, None for the first: at least one if there are any, and
fewer where they are long. Each says in ``found`` how many there were to give."""


class LongAnswers:
    """The answers of more than one piece that a process has at work."""

    def __init__(self, *, most: int, wait_seconds: float, write_seconds: float) -> None:
        """One more than ``most`` is waited for, but not long."""
        self.write_seconds = write_seconds
        self._wait_seconds = wait_seconds
        self._slots = asyncio.Semaphore(most)

    async def acquire(self) -> None:
        """Take a slot.

        Raises:
            TooMany: none is free soon.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise TooMany("as many long answers as this process holds are being sent") from None

    def release(self) -> None:
        """Give the slot back."""
        self._slots.release()


class PageRead(msgspec.Struct):
    """What was read of a page: encoded items in pieces, how many, and the row of the last one.

    ``more`` says that there are further items behind it.
    """

    pieces: list[bytes] = msgspec.field(default_factory=list)
    count: int = 0
    size: int = 0
    last: Row | None = None
    more: bool = False

    def take(self, rows: Sequence[Row], limit: int, view: Callable[[Row], Any]) -> None:
        """Take the next rows, as far as they belong to the page."""
        items: list[bytes] = []
        for row in rows:
            if self.count == limit or self.size >= PAGE_BYTES:
                self.more = True
                break
            items.append(_encode(view(row)))
            self.count, self.size, self.last = self.count + 1, self.size + len(items[-1]), row
        if items:
            self.pieces.append((b"," if self.pieces else b"") + b",".join(items))


async def page(
    fetch: Fetch,
    view: Callable[[Row], Any],
    limit: int,
    *,
    long: LongAnswers,
    msg: str = REQUEST_DONE,
) -> tuple[Response, PageRead]:
    """The answer with at most ``limit`` items, and what was read for it.

    Raises:
        TooMany: it is long, and too many of those are being sent.
    """
    read, held, most = PageRead(), False, PIECE_ROWS
    try:
        while True:
            asked = min(limit - read.count, most if read.size < PAGE_BYTES else 0) + 1
            rows = await fetch(read.last, asked)
            most = min(PIECE_ROWS, FEW_ROWS + 2 * len(rows))  # long ones are not looked at twice
            read.take(rows, limit, view)
            if read.more or not rows or rows[0]["found"] == len(rows) < asked:
                break
            if not held:
                await long.acquire()
                held = True
        answer = _answer(read, msg, long if held else None)
    except BaseException:
        if held:
            long.release()
        raise
    return answer, read


def _answer(read: PageRead, msg: str, long: LongAnswers | None) -> Response:
    head, _, tail = success_body([], msg).rpartition(b"[]")
    pieces = [head + b"[", *read.pieces, b"]" + tail]
    read.pieces.clear()
    if long is None:
        return Response(b"".join(pieces), media_type=MEDIA_TYPE)
    return PiecesAnswer(pieces, long)


class PiecesAnswer(Response):
    """An answer that is sent in pieces, and let go of as they are taken; it gives a slot back."""

    def __init__(self, pieces: Sequence[bytes], long: LongAnswers) -> None:
        super().__init__(None, media_type=MEDIA_TYPE)
        self._pieces = deque(pieces)
        self._long = long
        self.headers["content-length"] = str(sum(map(len, pieces)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, or cut off a reader that does not take it."""

        async def pieces() -> AsyncGenerator[bytes, None]:
            while self._pieces:
                yield self._pieces.popleft()

        try:
            await _send_pieces(self, pieces(), self._long.write_seconds, scope, receive, send)
        finally:
            self._pieces.clear()
            self._long.release()


class StreamedAnswer(Response):
    """An answer whose pieces are made while it is sent; it gives a slot back.

    What goes wrong in between cuts the connection: the answer is not whole.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], long: LongAnswers) -> None:
        super().__init__(None, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._pieces = pieces
        self._long = long

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, or cut the connection."""
        try:
            await _send_pieces(self, self._pieces, self._long.write_seconds, scope, receive, send)
        finally:
            self._long.release()


async def _send_pieces(  # noqa: PLR0913, PLR0917 - an ASGI call, and what it sends
    answer: Response,
    pieces: AsyncGenerator[bytes, None],
    write_seconds: float,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    async def serve() -> bool:
        writer = StreamWriter(send, write_seconds)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    await writer.write(piece)
        except (Stalled, Unavailable) as error:
            logger.debug("an answer was cut off: %s", error)
            return False
        return await writer.end(seconds=write_seconds)

    await send({"type": "http.response.start", "status": 200, "headers": answer.raw_headers})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        await pieces.aclose()
        return
    await send_until_gone(scope, receive, serve())


async def text_answer(texts: AsyncGenerator[str, None], *, long: LongAnswers, msg: str) -> Response:
    """The answer whose result is the texts, joined. One text alone is sent at once.

    Raises:
        TooMany: it is long, and too many of those are being sent.
    """
    first = await anext(texts, "")
    second = await anext(texts, None)
    if second is None:
        return Response(success_body(first, msg), media_type=MEDIA_TYPE)
    await long.acquire()
    return StreamedAnswer(_quoted(first + second, texts, msg), long)


async def _quoted(
    begin: str, texts: AsyncGenerator[str, None], msg: str
) -> AsyncGenerator[bytes, None]:
    head, _, tail = success_body("", msg).rpartition(b'""')
    yield head + _encode(begin)[:-1]
    async with aclosing(texts):
        async for text in texts:
            yield _encode(text)[1:-1]
    yield b'"' + tail
