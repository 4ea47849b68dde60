"""Streams of events: each client is a cursor into the ring buffer.

A client that begins far back reads the log until it reaches the ring; from then on it is live. A
live client gets the events of the ring after its cursor, as fast as its connection accepts them.
One that the ring overtakes, or whose connection accepts nothing for too long, gets a last frame,
``dropped``, with the sequence to resume after, and is disconnected.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from abaco_api.api_errors import TooMany
from abaco_api.streams.domain import sse_frames
from abaco_api.streams.domain.encoded_event import EncodedEvent
from abaco_api.streams.domain.event_ring import EventRing
from abaco_api.streams.domain.selection import Selection
from abaco_api.streams.events.event_feed import EventFeed
from abaco_api.streams.stream_writer import (
    EVENT_STREAM,
    STALLED,
    Stalled,
    StreamWriter,
    send_until_disconnected,
)
from abaco_proto.errors import Unavailable

MEDIA_TYPE = EVENT_STREAM
WRITE_BYTES = 64 * 1024
STEP_EVENTS = 1024
MAX_LOG_READERS = 8
"""How many streams read the log at once, each for ``LOG_SLICE_SECONDS``; the others wait."""

LOG_SLICE_SECONDS = 2.0
PAUSE_SECONDS = 1.0

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
]

T = TypeVar("T")

MayRead = Callable[[str], Awaitable[bool]]
"""Whether the events of an actor, a host or a token may be read by a client, as of now."""


class EventStreams:
    """All streams of events of a process."""

    def __init__(self, *, most: int, heartbeat_seconds: float, write_seconds: float) -> None:
        """At most ``most`` at once; a write may take ``write_seconds``."""
        self.heartbeat_seconds = heartbeat_seconds
        self.write_seconds = write_seconds
        self.readers = asyncio.Semaphore(MAX_LOG_READERS)
        self.count = 0
        self._most = most

    def open(
        self,
        feed: EventFeed,
        selection: Selection,
        *,
        after: int | None,
        before: int | None,
        may_read: MayRead | None = None,
    ) -> "EventStream":
        """A stream of a tenant's events for one more client, of those whose source it may read.

        Raises:
            TooMany: the process serves as many as it may.
        """
        if self.count >= self._most:
            raise TooMany(f"there are {self.count} subscribers already, the most of this process")
        return EventStream(self, feed, selection, after=after, before=before, may_read=may_read)


class EventStream(Response):
    """The answer to one client, after ``after`` (None: from now on) up to ``before``."""

    def __init__(  # noqa: PLR0913 - what to send, and of what
        self,
        streams: EventStreams,
        feed: EventFeed,
        selection: Selection,
        *,
        after: int | None,
        before: int | None,
        may_read: MayRead | None = None,
    ) -> None:
        self._may_read = may_read
        super().__init__(None, media_type=MEDIA_TYPE)
        self._streams = streams
        self._feed = feed
        self._selection = selection
        self._cursor = after
        self._before = before
        self._live = False
        self._writer: StreamWriter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client disconnects or is disconnected, or the process stops."""
        self._writer = StreamWriter(send, self._streams.write_seconds)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        self._streams.count += 1
        try:
            with self._feed.use():
                await send_until_disconnected(scope, receive, self._serve())
        finally:
            self._streams.count -= 1

    # -- which events ----------------------------------------------------------------------------

    async def _serve(self) -> bool:
        """Send the stream; return whether it ended as it should, its last frame included."""
        try:
            await self._writer.write(sse_frames.RETRY)
            await self._send_all()
        except Stalled:
            return await self._writer.end(self._dropped(STALLED))
        if self._is_overtaken():
            return await self._writer.end(self._dropped("too slow for what happens"))
        return await self._writer.end(b"")

    async def _send_all(self) -> None:
        """Send events until ``before``, until the process stops, or the ring overtakes it."""
        while not (self._feed.closed or self._is_overtaken() or self._at_end()):
            moved, ring = self._feed.moved, self._feed.ring
            if ring is None:
                await self._wait(moved)
                continue
            if self._cursor is None:
                self._cursor = ring.position
            if self._cursor < ring.floor:
                await self._catch_up()
            elif self._cursor < ring.position:
                self._live = True
                await self._send_from_ring(ring)
            else:
                self._live = True
                await self._wait(moved)

    def _is_overtaken(self) -> bool:
        ring = self._feed.ring
        return self._live and ring is not None and (self._cursor or 0) < ring.floor

    def _at_end(self) -> bool:
        return self._before is not None and (self._cursor or 0) >= self._before - 1

    async def _send_from_ring(self, ring: EventRing) -> None:
        """Send the next events of the ring after the cursor."""
        found = ring.after(self._cursor or 0, STEP_EVENTS)
        await self._send_matching(found, found[-1].sequence)

    async def _wait(self, moved: asyncio.Event) -> None:
        """Wait for the next event; send a heartbeat if there is none for a while."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(
                self._writer.written_at + self._streams.heartbeat_seconds - now
            ):
                await moved.wait()
        except TimeoutError:
            await self._heartbeat()

    async def _catch_up(self) -> None:
        """Send events of the log, until the ring is reached or the time slice is over."""
        clock = asyncio.get_running_loop().time
        async with self._log_slot():
            until = clock() + LOG_SLICE_SECONDS
            history = self._feed.history(self._selection, after=self._cursor or 0)
            try:
                async with (
                    aclosing(history),
                    aclosing(self._heartbeats_between(history)) as batches,
                ):
                    async for found, reached in batches:
                        await self._send_matching(found, reached)
                        if clock() > until or self._at_end() or self._feed.closed:
                            return
            except Unavailable:
                pass
            else:
                return
        await self._with_heartbeats(asyncio.sleep(PAUSE_SECONDS))

    @asynccontextmanager
    async def _log_slot(self) -> AsyncGenerator[None, None]:
        """Hold one of the slots for reading the log."""
        while True:
            try:
                async with asyncio.timeout(self._streams.heartbeat_seconds):
                    await self._streams.readers.acquire()
            except TimeoutError:
                await self._heartbeat()
            else:
                break
        try:
            yield
        finally:
            self._streams.readers.release()

    async def _heartbeats_between(
        self, history: AsyncGenerator[T, None]
    ) -> AsyncGenerator[T, None]:
        """The same batches; heartbeats are sent while the next is awaited."""
        while True:
            try:
                batch = await self._with_heartbeats(anext(history))
            except StopAsyncIteration:
                return
            yield batch

    async def _with_heartbeats(self, wait: Awaitable[T]) -> T:
        """Await something, and send heartbeats meanwhile."""
        task = asyncio.ensure_future(_answer(wait))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=self._streams.heartbeat_seconds)
                if not task.done():
                    await self._heartbeat()
            return _unpacked(task.result())
        finally:
            task.cancel()
            await asyncio.wait({task})

    # -- frames ---------------------------------------------------------------------------------

    async def _send_matching(self, found: Iterable[EncodedEvent], reached: int) -> None:
        """Write the matching ones of these events, and advance the cursor."""
        frames: list[bytes] = []
        size, last = 0, self._cursor
        for item in found:
            if self._before is not None and item.sequence >= self._before:
                break
            if self._selection.matches(item) and await self._is_readable(item):
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

    async def _is_readable(self, item: EncodedEvent) -> bool:
        """Whether the client may read an event; wait while the permissions are unavailable."""
        while self._may_read is not None and not self._feed.closed:
            try:
                return await self._may_read(item.actor_id)
            except Unavailable:
                await self._with_heartbeats(asyncio.sleep(PAUSE_SECONDS))
        return self._may_read is None

    async def _heartbeat(self) -> None:
        """Send a comment, so that both ends know that the connection works.

        Its id moves the sequence that a client resumes from, past the events that do not match.
        """
        cursor = None if self._cursor is None else str(self._cursor)
        await self._writer.write(sse_frames.comment("heartbeat", id=cursor))

    def _dropped(self, reason: str) -> bytes:
        cursor = "" if self._cursor is None else str(self._cursor)
        return sse_frames.dropped(reason, self._cursor, id=cursor)


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
