"""Bytes on their way from a reading thread to the event loop, never more than a limit.

A thread that reads faster than the loop takes is held up; whoever feeds it is then held up too.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class Pipe:
    """One writer in a thread, one reader in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        """``limit`` is how many bytes may wait (one piece may exceed it)."""
        self._loop = loop
        self._limit = limit
        self._room = threading.Condition()
        self._some = asyncio.Event()
        self._waiting = bytearray()
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._cut: Callable[[], None] | None = None

    # -- the thread's side

    def attach(self, cut: Callable[[], None]) -> None:
        """``cut`` ends the source, from any thread; it is called when the reader closes."""
        with self._room:
            self._cut = cut
            closed = self._closed
        if closed:
            cut()

    def put(self, data: bytes) -> bool:
        """Hand over bytes; waits for room. False when nobody reads any more."""
        with self._room:
            self._room.wait_for(lambda: self._closed or len(self._waiting) < self._limit)
            if self._closed:
                return False
            if not self._waiting:  # else the reader knows already
                self._wake()
            self._waiting += data
        return True

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will come; ``error`` goes to the reader after the last byte. Said once."""
        with self._room:
            if not self._ended:
                self._ended, self._error = True, error
                self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._some.set)

    # -- the loop's side

    async def take(self) -> bytes:
        """All that waits, as soon as there is something; empty at the end."""
        while True:
            with self._room:
                self._some.clear()
                data, self._waiting = bytes(self._waiting), bytearray()
                self._room.notify()
                if data:
                    return data
                if self._ended:
                    break
            await self._some.wait()
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        """Stop reading, and end the source."""
        with self._room:
            self._closed = True
            cut, ended = self._cut, self._ended
            self._room.notify()
        if cut is not None and not ended:
            cut()
