"""Pages of long lists: bounded by count and by bytes, encoded and sent in pieces.

Each piece is read with its own query, and a page is never one string. Most pages are one piece. The
number of longer pages in memory is bounded. A piece is freed once it is sent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from abaco_api.api_errors import TooMany
from abaco_api.domain.views import Row
from abaco_api.http.response_envelope import MEDIA_TYPE, REQUEST_DONE, success_body
from abaco_api.streams.stream_writer import Stalled, StreamWriter, send_until_disconnected
from abaco_proto.errors import Unavailable

PAGE_BYTES = 8 * 1024 * 1024
"""A page ends after the item that reaches this size; a single item may be longer."""

PIECE_ROWS, FEW_ROWS = 256, 8
LONG_RESPONSES, LONG_OUTPUTS = 4, 32
"""Pages and outputs of more than one piece that a process sends at once. An output takes less
memory, because it is read while it is sent.
"""

NEXT = "Abaco-Next"
"""The header with the parameter of the next page; ``Link`` has its address."""

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode

Fetch = Callable[[Row | None, int], Awaitable[Sequence[Row]]]
"""Returns at most so many rows after a row (None: the first): at least one if there are any, and
fewer if they are long. The column ``found`` of each is the number of rows that there were."""


class LongResponses:
    """Slots for the responses of more than one piece that a process sends at once."""

    def __init__(self, *, most: int, wait_seconds: float, write_seconds: float) -> None:
        """A request waits up to ``wait_seconds`` for one of ``most`` slots."""
        self.write_seconds = write_seconds
        self._wait_seconds = wait_seconds
        self._slots = asyncio.Semaphore(most)

    async def acquire(self) -> None:
        """Take a slot.

        Raises:
            TooMany: none is free in time.
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
    """The part of a page that was read: encoded items in pieces, their number, and the last row.

    ``more``: there are further items after it.
    """

    pieces: list[bytes] = msgspec.field(default_factory=list)
    count: int = 0
    size: int = 0
    last: Row | None = None
    more: bool = False

    def take(self, rows: Sequence[Row], limit: int, view: Callable[[Row], Any]) -> None:
        """Add the next rows, up to the end of the page."""
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
    long: LongResponses,
    msg: str = REQUEST_DONE,
) -> tuple[Response, PageRead]:
    """The response with at most ``limit`` items, and what was read for it.

    Raises:
        TooMany: it is long, and too many long responses are being sent.
    """
    read, acquired, most = PageRead(), False, PIECE_ROWS
    try:
        while True:
            wanted = min(limit - read.count, most if read.size < PAGE_BYTES else 0) + 1
            rows = await fetch(read.last, wanted)
            most = min(PIECE_ROWS, FEW_ROWS + 2 * len(rows))  # so that few long rows are read twice
            read.take(rows, limit, view)
            if read.more or not rows or rows[0]["found"] == len(rows) < wanted:
                break
            if not acquired:
                await long.acquire()
                acquired = True
        response = _response(read, msg, long if acquired else None)
    except BaseException:
        if acquired:
            long.release()
        raise
    return response, read


def _response(read: PageRead, msg: str, long: LongResponses | None) -> Response:
    head, _, tail = success_body([], msg).rpartition(b"[]")
    pieces = [head + b"[", *read.pieces, b"]" + tail]
    read.pieces.clear()
    if long is None:
        return Response(b"".join(pieces), media_type=MEDIA_TYPE)
    return PiecewiseResponse(pieces, long)


class PiecewiseResponse(Response):
    """A response that is sent in pieces. Each is freed once it is sent, and the slot at the end."""

    def __init__(self, pieces: Sequence[bytes], long: LongResponses) -> None:
        super().__init__(None, media_type=MEDIA_TYPE)
        self._pieces = deque(pieces)
        self._long = long
        self.headers["content-length"] = str(sum(map(len, pieces)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all pieces, or abort the connection of a client that does not read."""

        async def pieces() -> AsyncGenerator[bytes, None]:
            while self._pieces:
                yield self._pieces.popleft()

        try:
            await _send_pieces(self, pieces(), self._long.write_seconds, scope, receive, send)
        finally:
            self._pieces.clear()
            self._long.release()


class StreamedResponse(Response):
    """A response whose pieces are made while it is sent; it frees its slot at the end.

    An error on the way aborts the connection, so that the client does not take a part for all.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], long: LongResponses) -> None:
        super().__init__(None, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._pieces = pieces
        self._long = long

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all pieces, or abort the connection."""
        try:
            await _send_pieces(self, self._pieces, self._long.write_seconds, scope, receive, send)
        finally:
            self._long.release()


async def _send_pieces(  # noqa: PLR0913, PLR0917 - an ASGI call, and what it sends
    response: Response,
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
            logger.debug("response aborted: %s", error)
            return False
        return await writer.end(seconds=write_seconds)

    await send({"type": "http.response.start", "status": 200, "headers": response.raw_headers})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        await pieces.aclose()
        return
    await send_until_disconnected(scope, receive, serve())


async def text_response(
    texts: AsyncGenerator[str, None], *, long: LongResponses, msg: str
) -> Response:
    """The response whose result is the texts, joined. A single text is sent at once.

    Raises:
        TooMany: it is long, and too many long responses are being sent.
    """
    first = await anext(texts, "")
    second = await anext(texts, None)
    if second is None:
        return Response(success_body(first, msg), media_type=MEDIA_TYPE)
    await long.acquire()
    return StreamedResponse(_quoted(first + second, texts, msg), long)


async def _quoted(
    begin: str, texts: AsyncGenerator[str, None], msg: str
) -> AsyncGenerator[bytes, None]:
    head, _, tail = success_body("", msg).rpartition(b'""')
    yield head + _encode(begin)[:-1]
    async with aclosing(texts):
        async for text in texts:
            yield _encode(text)[1:-1]
    yield b'"' + tail


def link_next(response: Response, request: Request, query: Mapping[str, str], **begin: int) -> None:
    """Add the headers of the next page; ``begin`` is the query parameter where it begins."""
    [value] = begin.values()
    address = f"{request.scope['path']}?{urlencode({**query, **begin})}"
    response.headers[NEXT] = str(value)
    response.headers["Link"] = f'<{address}>; rel="next"'
