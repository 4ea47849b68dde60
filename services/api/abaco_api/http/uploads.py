"""Uploads: a request goes on when its body is there, and until then holds up no other.

A body has a deadline and, after a grace, a least rate. Those that are not whole yet are bounded in
number and in bytes: when there are too many, the one that has been quiet for longest ends.
"""

import asyncio
from collections import OrderedDict
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from abaco_api.http.http_errors import BodyTooLarge, TimedOut
from abaco_api.http.response_envelope import failure_of
from abaco_proto.errors import AbacoError

WINDOW_SECONDS = 5.0
"""In so much time as many bytes must come as the least rate says."""

DISCARD_BYTES = 16 * 1024 * 1024
DISCARD_SECONDS = 1.0


class _Upload:
    """A body that is not whole yet."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.evicted = False
        self.waiting: asyncio.Timeout | None = None


class _Gone(Exception):
    """The client went away."""


class Uploads:
    """Reads bodies of at most ``limit`` bytes, within ``seconds``, before ``app`` is asked."""

    def __init__(  # noqa: PLR0913 - the limits, each once
        self,
        app: ASGIApp,
        *,
        limit: int,
        seconds: float,
        rate: int,
        most: int,
        most_bytes: int,
        window_seconds: float = WINDOW_SECONDS,
    ) -> None:
        """``rate`` is in bytes a second, ``most`` and ``most_bytes`` of all that are not whole."""
        self._app = app
        self._limit = limit
        self._seconds = seconds
        self._window = window_seconds
        self._window_bytes = rate * window_seconds
        self._most = most
        self._most_bytes = most_bytes
        self._uploads: OrderedDict[_Upload, None] = OrderedDict()
        self.bytes = 0

    @property
    def count(self) -> int:
        """How many are not whole."""
        return len(self._uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, when it is whole."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" not in headers and length.strip(b"0") == b"":
            await self._app(scope, receive, send)
            return
        announced = int(length) if length.isdigit() else 0
        try:
            if announced > self._limit and b"expect" in headers:
                raise BodyTooLarge(f"the body: {announced} bytes, at most {self._limit}")
            body = await self._read(receive)
        except _Gone:
            return
        except AbacoError as error:
            await failure_of(error)(scope, receive, send)
            return
        await self._app(scope, _once(body, receive), send)

    async def _read(self, receive: Receive) -> bytes:
        upload = _Upload()
        self._uploads[upload] = None
        try:
            return await self._whole(upload, receive)
        finally:
            self._remove(upload)

    async def _whole(self, upload: _Upload, receive: Receive) -> bytes:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._seconds
        until, come, more = clock() + self._window, 0, True
        while more:
            message: Message | None = None
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(until, deadline)) as upload.waiting:
                    message = await receive()
            if message is not None:
                come += self._take(upload, message)
                more = message.get("more_body", False)
                if upload.size > self._limit:
                    self._remove(upload)
                    await _discard(receive, more=more)
                    raise BodyTooLarge(f"the body: more than {self._limit} bytes")
            if upload.evicted:
                raise TimedOut("the body: others that are not whole came faster")
            if more and clock() >= deadline:
                raise TimedOut(f"the body: it is not whole after {self._seconds} s")
            if more and clock() >= until:
                if come < self._window_bytes:
                    what = f"{come} bytes in {self._window} s, at least {self._window_bytes:.0f}"
                    raise TimedOut(f"the body: {what}")
                until, come = clock() + self._window, 0
        return b"".join(upload.parts)

    def _take(self, upload: _Upload, message: Message) -> int:
        if message["type"] == "http.disconnect":
            raise _Gone
        body: bytes = message.get("body", b"")
        if not upload.evicted:
            upload.parts.append(body)
            upload.size += len(body)
            self.bytes += len(body)
            self._uploads.move_to_end(upload)
            while self._too_many():
                self._evict()
        return len(body)

    def _too_many(self) -> bool:
        """One alone is bounded by the limit on bodies."""
        over = self.bytes > self._most_bytes or len(self._uploads) > self._most
        return over and len(self._uploads) > 1

    def _evict(self) -> None:
        """End the one that nothing came of for longest."""
        stalest = next(iter(self._uploads))
        self._remove(stalest)
        stalest.evicted = True
        if stalest.waiting is not None:
            stalest.waiting.reschedule(0)

    def _remove(self, upload: _Upload) -> None:
        if upload in self._uploads:
            del self._uploads[upload]
            self.bytes -= upload.size


async def _discard(receive: Receive, *, more: bool) -> None:
    """Take what still comes, within reason: a client hears an answer only when it may finish."""
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while more and size < DISCARD_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)


def _once(body: bytes, receive: Receive) -> Receive:
    """The body, and after it whatever the connection has to say."""
    told = False

    async def whole() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return whole
