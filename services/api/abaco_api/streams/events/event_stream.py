"""One stream: a client as a cursor into the ring, and what it gets.

Theory: a client that begins far back reads the log until it reaches the ring; from then on it is
live. Live, it gets what the ring holds behind its cursor, as fast as its connection takes it. One
that falls out of the ring, or whose connection takes nothing for too long, hears a last word with
the place to go on from, and is let go: it costs the others nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from abaco_api.http.http_errors import TooMany
from abaco_api.streams.domain.encoded_event import Item, frame
from abaco_api.streams.domain.event_ring import Ring
from abaco_api.streams.domain.selection import Selection
from abaco_api.streams.events.event_feed import Feed
from abaco_api.streams.stream_writer import (
    EVENT_STREAM,
    STALLED,
    Stalled,
    StreamWriter,
    send_until_gone,
)
from abaco_proto.errors import Unavailable

MEDIA_TYPE = EVENT_STREAM
WRITE_BYTES = 64 * 1024
STEP_EVENTS = 1024
READERS = 8
"""How many may read the log at once; the others wait for their turn of ``TURN_SECONDS``."""

TURN_SECONDS = 2.0
PAUSE_SECONDS = 1.0

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
]

T = TypeVar("T")


class Streams:
    """All streams of a process, and what they share."""

    def __init__(
        self, feed: Feed, *, most: int, heartbeat_seconds: float, write_seconds: float
    ) -> None:
        """At most ``most`` at once; a write may take ``write_seconds``."""
        self.feed = feed
        self.heartbeat_seconds = heartbeat_seconds
        self.write_seconds = write_seconds
        self.readers = asyncio.Semaphore(READERS)
        self.count = 0
        self._most = most

    def open(self, selection: Selection, *, after: int | None, before: int | None) -> "Stream":
        """A stream for one more client.

        Raises:
            TooMany: there is no room for it now.
        """
        if self.count >= self._most:
            raise TooMany(f"there are {self.count} subscribers already, the most of this process")
        return Stream(self, selection, after=after, before=before)


class Stream(Response):
    """The answer to one client, from behind ``after`` (None: from now on) up to ``before``."""

    def __init__(
        self, streams: Streams, selection: Selection, *, after: int | None, before: int | None
    ) -> None:
        super().__init__(None, media_type=MEDIA_TYPE)
        self._streams = streams
        self._feed = streams.feed
        self._selection = selection
        self._cursor = after
        self._before = before
        self._live = False
        self._writer: StreamWriter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client goes away, is let go, or the process ends."""
        self._writer = StreamWriter(send, self._streams.write_seconds)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        self._feed.want()
        self._streams.count += 1
        try:
            await send_until_gone(scope, receive, self._serve())
        finally:
            self._streams.count -= 1

    # -- what is sent ----------------------------------------------------------------------------

    async def _serve(self) -> bool:
        """Whether the stream ended in good order, its end included."""
        try:
            await self._writer.write(b"retry: 1000\n\n")
            await self._send_all()
        except Stalled:
            return await self._writer.end(self._dropped(STALLED))
        if self._fell_out():
            return await self._writer.end(self._dropped("too slow for what happens"))
        return await self._writer.end(b"")

    async def _send_all(self) -> None:
        """Until the end that was asked for, or that of the process, or out of the ring."""
        while not (self._feed.closed or self._fell_out() or self._at_end()):
            moved, ring = self._feed.moved, self._feed.ring
            if ring is None:
                await self._rest(moved)
                continue
            if self._cursor is None:
                self._cursor = ring.position
            if self._cursor < ring.floor:
                await self._catch_up()
            elif self._cursor < ring.position:
                self._live = True
                await self._take(ring)
            else:
                self._live = True
                await self._rest(moved)

    def _fell_out(self) -> bool:
        ring = self._feed.ring
        return self._live and ring is not None and (self._cursor or 0) < ring.floor

    def _at_end(self) -> bool:
        return self._before is not None and (self._cursor or 0) >= self._before - 1

    async def _take(self, ring: Ring) -> None:
        """What is in the ring behind the cursor, or a good part of it."""
        found = ring.after(self._cursor or 0, STEP_EVENTS)
        await self._pass_on(found, found[-1].sequence)

    async def _rest(self, moved: asyncio.Event) -> None:
        """Until something happens; a heartbeat when that takes long."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(
                self._writer.written_at + self._streams.heartbeat_seconds - now
            ):
                await moved.wait()
        except TimeoutError:
            await self._beat()

    async def _catch_up(self) -> None:
        """From the log, until the ring is reached or others have waited long enough."""
        clock = asyncio.get_running_loop().time
        async with self._reading():
            until = clock() + TURN_SECONDS
            history = self._feed.history(self._selection, after=self._cursor or 0)
            try:
                async with aclosing(history), aclosing(self._patiently(history)) as batches:
                    async for found, reached in batches:
                        await self._pass_on(found, reached)
                        if clock() > until or self._at_end() or self._feed.closed:
                            return
            except Unavailable:
                pass
            else:
                return
        await self._beating(asyncio.sleep(PAUSE_SECONDS))

    @asynccontextmanager
    async def _reading(self) -> AsyncGenerator[None, None]:
        """One of the few who may read the log now."""
        while True:
            try:
                async with asyncio.timeout(self._streams.heartbeat_seconds):
                    await self._streams.readers.acquire()
            except TimeoutError:
                await self._beat()
            else:
                break
        try:
            yield
        finally:
            self._streams.readers.release()

    async def _patiently(self, history: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The same batches, with heartbeats while the next is waited for."""
        while True:
            try:
                batch = await self._beating(anext(history))
            except StopAsyncIteration:
                return
            yield batch

    async def _beating(self, wait: Awaitable[T]) -> T:
        """Wait for something, with heartbeats meanwhile."""
        task = asyncio.ensure_future(_answer(wait))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=self._streams.heartbeat_seconds)
                if not task.done():
                    await self._beat()
            return _unpacked(task.result())
        finally:
            task.cancel()
            await asyncio.wait({task})

    # -- how it is sent --------------------------------------------------------------------------

    async def _pass_on(self, found: Iterable[Item], reached: int) -> None:
        """Write what is wanted of these events; the cursor follows what was written."""
        frames: list[bytes] = []
        size, last = 0, self._cursor
        for item in found:
            if self._before is not None and item.sequence >= self._before:
                break
            if self._selection.takes(item):
                if size + len(item.frame) > WRITE_BYTES and frames:
                    await self._writer.write(b"".join(frames))
                    self._cursor, size = last, 0
                    frames.clear()
                frames.append(item.frame)
                size += len(item.frame)
                last = item.sequence
        if frames:
            await self._writer.write(b"".join(frames))
        self._cursor = max(reached, self._cursor or 0)

    async def _beat(self) -> None:
        """A comment, so that the connection is known to live.

        The id without an event moves the place a client resumes from, past what it did not want.
        """
        place = b"" if self._cursor is None else b"id: %d\n" % self._cursor
        await self._writer.write(b": heartbeat\n" + place + b"\n")

    def _dropped(self, reason: str) -> bytes:
        place = "" if self._cursor is None else str(self._cursor)
        word = {"reason": reason, "resume_after": self._cursor}
        return frame(place, "dropped", msgspec.json.encode(word))


class _Ended(msgspec.Struct, frozen=True):
    """The end of an iteration, as a value: a task cannot raise it."""


async def _answer(wait: Awaitable[T]) -> T | _Ended:
    try:
        return await wait
    except StopAsyncIteration:
        return _Ended()


def _unpacked(answer: T | _Ended) -> T:
    if isinstance(answer, _Ended):
        raise StopAsyncIteration
    return answer
