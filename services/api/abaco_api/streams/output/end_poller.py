"""Polls the read models for the ends of executions: one query for all readers that wait.

A follower of the log instead would receive the events of all executions of the actor.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from abaco_api.domain.views import Row
from abaco_proto.errors import Unavailable

Key = tuple[str, int]
"""Actor id and ordinal."""

POLL_SECONDS = 0.1
PAUSE_SECONDS = 0.5


class EndPoller:
    """Queries for the readers of one tenant, only while one waits."""

    def __init__(self, ended: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Row]]]) -> None:
        """``ended`` gives the rows of those executions that have ended."""
        self._ended = ended
        self._waiting: dict[Key, list[asyncio.Future[Row]]] = {}
        self._poller: asyncio.Task[None] | None = None

    async def end(self, key: Key) -> Row:
        """The row of an execution as soon as it has ended, however long that takes."""
        future: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            return await future
        finally:
            self._waiting[key].remove(future)
            if not self._waiting[key]:
                del self._waiting[key]

    async def _poll(self) -> None:
        while self._waiting:
            try:
                found = await self._ended(list(self._waiting))
            except Unavailable:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            for key, row in found.items():
                for future in self._waiting.get(key, ()):
                    if not future.done():
                        future.set_result(row)
            await asyncio.sleep(POLL_SECONDS)
