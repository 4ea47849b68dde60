"""The start limiter: bounds how many containers start at once on a host.

Containers are removed one at a time (docs/adr/0008), so in the long run a host starts as many as
it can remove. Starts that use the processors while a removal waits for the kernel increase the
throughput. Starts that overtake the removals only add containers to be removed, and slow the
removals down. So more than two run at once only while the removals keep up.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

MIN_STARTS = 2
"""Starts at once that one remover keeps up with on two processors (docs/adr/0047)."""

MAX_BACKLOG = 1
"""The number of containers that may wait for removal while more than ``MIN_STARTS`` start."""


class StartLimiter:
    """Admits the starts of one host in the order in which they were requested."""

    def __init__(self, max_starts: int, backlog: Callable[[], int]) -> None:
        """``backlog`` returns the number of containers that wait for removal."""
        self._max_starts = max_starts
        self._backlog = backlog
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def admitted(self) -> AsyncGenerator[None, None]:
        """Wait until a start is admitted; it counts as running until the block ends."""
        admission: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(admission)
        self._admit()
        try:
            await admission
            yield
        finally:
            if not admission.cancelled():
                self._running -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._running < self._limit():
            admission = self._waiting.popleft()
            if not admission.cancelled():
                self._running += 1
                admission.set_result(None)

    def _limit(self) -> int:
        keeps_up = self._backlog() <= MAX_BACKLOG
        return self._max_starts if keeps_up else min(self._max_starts, MIN_STARTS)
