"""Turns: those who append to one history in this process go one after the other.

Theory: optimistic concurrency keeps a history right, but many writers of one process would only
make one another try again. They stand in a line per history. When the log does not answer the
one in front, it would not answer those behind either: they fail with it, so that nobody waits
longer than one timeout for a log that is away.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from abaco_proto.errors import Unavailable

LINE_SECONDS = 10.0
"""The longest wait in a line that moves."""


class _Line:
    """A line lives as long as somebody stands in it."""

    def __init__(self) -> None:
        self.front = asyncio.Lock()
        self.failed_at = float("-inf")


class Turns:
    """Lines by key; ``seconds`` is the longest time at the front."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lines: WeakValueDictionary[str, _Line] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncGenerator[None, None]:
        """Be the only one with this key.

        Raises:
            Unavailable: the line was too long, or the time at the front was up.
        """
        clock = asyncio.get_running_loop().time
        line = self._lines.setdefault(key, _Line())
        arrived = clock()
        async with self._front(line, key):
            if line.failed_at >= arrived:
                raise Unavailable("the log (NATS) did not answer")
            try:
                async with asyncio.timeout(self._seconds):
                    yield
            except asyncio.TimeoutError:
                line.failed_at = clock()
                raise Unavailable(f"not done within {self._seconds} s") from None
            except Unavailable:
                line.failed_at = clock()
                raise

    @staticmethod
    @asynccontextmanager
    async def _front(line: _Line, key: str) -> AsyncGenerator[None, None]:
        try:
            async with asyncio.timeout(LINE_SECONDS):
                await line.front.acquire()
        except asyncio.TimeoutError:
            raise Unavailable(f"too many requests wait for {key}") from None
        try:
            yield
        finally:
            line.front.release()
