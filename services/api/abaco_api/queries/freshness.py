"""Freshness: a query shows at least what its process has written for its tenant, or is refused.

One poller reads the checkpoint of the read models for all queries that wait, and only then.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from abaco_api.api_errors import Behind
from abaco_proto.errors import Unavailable

POLL_SECONDS = 0.01
MAX_CACHED = 100_000
ALL_ACTORS = ""
EVERYTHING = "*"
"""The topic of every event, whatever it is about."""


class CheckpointPoller:
    """Waits until the read models hold an event, for all tenants of a process."""

    def __init__(self, checkpoint: Callable[[], Awaitable[int]], wait_seconds: float) -> None:
        self._checkpoint = checkpoint
        self._wait_seconds = wait_seconds
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._poller: asyncio.Task[None] | None = None
        self.position = 0

    async def reach(self, need: int) -> None:
        """Wait until the read models hold an event.

        Raises:
            Behind: they do not hold it in time.
            Unavailable: Postgres does not answer.
        """
        if self.position >= need:
            return
        waiter = (need, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(self._wait_seconds):
                await waiter[1]
        except asyncio.TimeoutError:
            raise Behind(f"the read models are behind: at {self.position}, need {need}") from None
        finally:
            self._waiting.remove(waiter)

    async def _poll(self) -> None:
        while self._waiting:
            try:
                self.position = await self._checkpoint()
            except Unavailable as error:
                self._fail(error)
                return
            for need, waiter in self._waiting:
                if need <= self.position and not waiter.done():
                    waiter.set_result(None)
            await asyncio.sleep(POLL_SECONDS)

    def _fail(self, error: Unavailable) -> None:
        for _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(error)


class Freshness:
    """Keeps the sequences that were written for one tenant, and waits for the read models."""

    def __init__(self, poller: CheckpointPoller) -> None:
        self._poller = poller
        self._written: OrderedDict[str, int] = OrderedDict()

    @property
    def position(self) -> int:
        """The last sequence that the read models are known to hold."""
        return self._poller.position

    def wrote(self, sequence: int, *topics: str) -> None:
        """Remember an event about each topic: an actor id, or ``ALL_ACTORS``."""
        for topic in (*topics, EVERYTHING):
            self._written[topic] = max(sequence, self._written.pop(topic, 0))
        while len(self._written) > MAX_CACHED:
            self._written.popitem(last=False)

    async def reach(self, topic: str, after: int = 0) -> None:
        """Wait until the read models hold all that is known to be written about a topic.

        Raises:
            Behind, Unavailable: as ``CheckpointPoller.reach``.
        """
        await self._poller.reach(max(after, self._written.get(topic, 0)))
