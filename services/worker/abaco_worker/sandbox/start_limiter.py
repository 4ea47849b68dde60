"""Turns to start a container: two at a time, and more while the removals keep up with them.

Theory: containers end one at a time (docs/adr/0008), so in the long run a host does as many as it
can end. Starts that keep the processors busy while an end waits for the kernel are a gain; starts
that overtake the ends only pile up containers to be removed, and slow the ends down.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

ALWAYS = 2
"""What one who ends them keeps up with, on two cores (docs/adr/0047)."""

KEPT_UP_WITH = 1
"""How many containers may wait for their removal while there are more starts than that."""


class Starts:
    """The starts that are under way on a host, and those that wait for their turn, in order."""

    def __init__(self, at_once: int, behind: Callable[[], int]) -> None:
        """``at_once`` are the most; ``behind`` tells how many containers wait to be removed."""
        self._at_once = at_once
        self._behind = behind
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """Wait for a turn, and have it to the end of the block."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
            yield
        finally:
            if not turn.cancelled():
                self._under_way -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._under_way < self._limit():
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self._under_way += 1
                turn.set_result(None)

    def _limit(self) -> int:
        keeping_up = self._behind() <= KEPT_UP_WITH
        return self._at_once if keeping_up else min(self._at_once, ALWAYS)
