"""Removes containers nobody needs any more, in the background of the next run."""

import asyncio
import logging

from abaco_proto.errors import Unavailable
from abaco_worker.engine import Engine, EngineFault

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0


class Sweeper:
    """What waits to be removed. It is lost in a crash, and found again by its labels."""

    def __init__(self, engine: Engine) -> None:
        """Nothing waits yet."""
        self._engine = engine
        self._waiting: asyncio.Queue[str] = asyncio.Queue()

    def take(self, container: str) -> None:
        """Remove a container, given by id or name, soon."""
        self._waiting.put_nowait(container)

    async def run(self) -> None:
        """Remove what comes, one after another, until cancelled."""
        while True:
            container = await self._waiting.get()
            try:
                await self._engine.remove(container)
            except (Unavailable, EngineFault) as error:
                logger.warning("container %s not removed yet: %s", container, error)
                await asyncio.sleep(PAUSE_SECONDS)
                self.take(container)
