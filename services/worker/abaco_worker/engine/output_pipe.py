"""The output pipe: passes bytes from a reading thread to the event loop, with a bounded buffer.

A thread that reads faster than the event loop consumes waits. Its source then waits, too.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class OutputPipe:
    """One writer in a thread, one reader in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        """``limit`` is the size of the buffer in bytes; one piece may exceed it."""
        self._loop = loop
        self._limit = limit
        self._condition = threading.Condition()
        self._not_empty = asyncio.Event()
        self._buffer = bytearray()
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._close_source: Callable[[], None] | None = None

    # -- the thread's side

    def attach(self, close_source: Callable[[], None]) -> None:
        """Set what ends the source when the reader closes; it can be called from any thread."""
        with self._condition:
            self._close_source = close_source
            closed = self._closed
        if closed:
            close_source()

    def put(self, data: bytes) -> bool:
        """Add bytes, waiting while the buffer is full. Return False if the reader has closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or len(self._buffer) < self._limit)
            if self._closed:
                return False
            if not self._buffer:  # otherwise the reader is awake already
                self._wake()
            self._buffer += data
        return True

    def end(self, error: BaseException | None = None) -> None:
        """End the stream; the reader gets ``error`` after the last byte. The first call counts."""
        with self._condition:
            if not self._ended:
                self._ended, self._error = True, error
                self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: there is no reader
            self._loop.call_soon_threadsafe(self._not_empty.set)

    # -- the loop's side

    async def take(self) -> bytes:
        """Return the buffered bytes, waiting for the first one; empty at the end."""
        while True:
            with self._condition:
                self._not_empty.clear()
                data, self._buffer = bytes(self._buffer), bytearray()
                self._condition.notify()
                if data:
                    return data
                if self._ended:
                    break
            await self._not_empty.wait()
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        """Stop reading, and close the source."""
        with self._condition:
            self._closed = True
            close_source, ended = self._close_source, self._ended
            self._condition.notify()
        if close_source is not None and not ended:
            close_source()
