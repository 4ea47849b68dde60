"""Slots for reading history: a fold costs the length of it, so few are at work at once."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from abaco_api.api_errors import TooMany


class FoldSlots:
    """At most ``most`` folds of this process at once; the next waits up to ``wait_seconds``."""

    def __init__(self, most: int, wait_seconds: float) -> None:
        """All slots are free."""
        self._most = most
        self._wait_seconds = wait_seconds
        self._free = asyncio.Semaphore(most)

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[None, None]:
        """Hold a slot inside.

        Raises:
            TooMany: none is free soon.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            what = f"{self._most} answers are being made from history already"
            raise TooMany(f"{what}, the most of this process") from None
        try:
            yield
        finally:
            self._free.release()
