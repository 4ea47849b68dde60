"""Turns: those who append to one history in this process go one after the other.

Theory: optimistic concurrency keeps a history right, but many writers of one process would only
make one another try again. They stand in a line per history. When the log does not answer the
one in front, it would not answer those behind either: they fail with it, so that nobody waits
longer than one timeout for a log that is away.
"""

import asyncio
from types import TracebackType
from weakref import WeakValueDictionary

from abaco_proto.errors import Unavailable

LINE_SECONDS = 10.0
"""The longest wait in a line that moves."""


class _Line:
    """A line lives as long as somebody stands in it."""

    def __init__(self) -> None:
        self.front = asyncio.Lock()
        self.standing = 0
        self.failed_at = float("-inf")


class Turns:
    """Lines by key; ``seconds`` is the longest time at the front."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lines: WeakValueDictionary[str, _Line] = WeakValueDictionary()

    def turn(self, key: str) -> "Turn":
        """Be the only one with this key, inside of ``async with``.

        Raises:
            Unavailable: the line was too long, or the time at the front was up.
        """
        return Turn(self._lines.setdefault(key, _Line()), key, self._seconds)


class Turn:
    """A place in a line."""

    def __init__(self, line: _Line, key: str, seconds: float) -> None:
        """Nobody waits yet."""
        self._line = line
        self._key = key
        self._seconds = seconds
        self._limit: asyncio.Timeout

    async def __aenter__(self) -> None:
        """Wait in line."""
        clock = asyncio.get_running_loop().time
        arrived = clock()
        await self._come_to_front()
        if self._line.failed_at >= arrived:
            self._go()
            raise Unavailable("the log (NATS) did not answer")
        self._limit = asyncio.timeout_at(clock() + self._seconds)
        await self._limit.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the next one come, who fails too if the log did not answer."""
        try:
            await self._limit.__aexit__(kind, error, trace)
            if isinstance(error, asyncio.TimeoutError):
                raise error
        except asyncio.TimeoutError:
            self._fail()
            words = f"the log (NATS) did not answer within {self._seconds} s"
            raise Unavailable(words) from None
        finally:
            if isinstance(error, Unavailable):
                self._fail()
            self._go()

    async def _come_to_front(self) -> None:
        line = self._line
        line.standing += 1
        try:
            if line.standing == 1:
                await line.front.acquire()  # at once
            else:
                async with asyncio.timeout(LINE_SECONDS):
                    await line.front.acquire()
        except asyncio.TimeoutError:
            line.standing -= 1
            raise Unavailable(f"too many requests wait for {self._key}") from None
        except BaseException:
            line.standing -= 1
            raise

    def _fail(self) -> None:
        self._line.failed_at = asyncio.get_running_loop().time()

    def _go(self) -> None:
        self._line.standing -= 1
        self._line.front.release()
