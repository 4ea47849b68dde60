"""Removes containers nobody needs any more, in the background of the next run."""

import asyncio
import logging
import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from abaco_proto.errors import Unavailable
from abaco_worker.engine import Engine, EngineFault
from abaco_worker.launching import leave
from abaco_worker.place import Place

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0
GONE_SECONDS = 10.0
"""How long the engine may take to see that a launcher has gone."""


class Leftover(msgspec.Struct, frozen=True):
    """A container, by id or name, and the folder of the host that goes with it."""

    container: str
    folder: Path | None = None


class Sweeper:
    """What waits to be removed. It is lost in a crash, and found again by its labels."""

    def __init__(self, engine: Engine) -> None:
        """Nothing waits yet."""
        self._engine = engine
        self._waiting: asyncio.Queue[Leftover] = asyncio.Queue()

    @property
    def waiting(self) -> int:
        """How many are still to be removed."""
        return self._waiting.qsize()

    def take(self, leftover: Leftover) -> None:
        """Remove a container soon, and then its folder."""
        self._waiting.put_nowait(leftover)

    @property
    def behind(self) -> int:
        """How many wait, beside the one that is being removed."""
        return self._waiting.qsize()

    async def run(self) -> None:
        """Remove what comes until cancelled: containers one after another, folders beside them."""
        async with asyncio.TaskGroup() as folders:
            while True:
                leftover = await self._waiting.get()
                try:
                    await self._end(leftover)
                except (Unavailable, EngineFault) as error:
                    await self._again(leftover, error)
                else:
                    folders.create_task(self._clear(leftover))

    async def _end(self, leftover: Leftover) -> None:
        """A launcher goes when it is asked; that spares the engine a program that kills it."""
        goes = leftover.folder is not None and await leave(Place(leftover.folder))
        patience = GONE_SECONDS if goes else 0.0
        await self._engine.remove(leftover.container, patience_seconds=patience)

    async def _clear(self, leftover: Leftover) -> None:
        """The folder last: while it is there, a worker that comes back knows of the rest."""
        if leftover.folder is None:
            return
        try:
            with suppress(FileNotFoundError):
                await asyncio.to_thread(shutil.rmtree, leftover.folder)
        except OSError as error:
            await self._again(leftover, error)

    async def _again(self, leftover: Leftover, error: Exception) -> None:
        logger.warning("container %s not removed yet: %s", leftover.container, error)
        await asyncio.sleep(PAUSE_SECONDS)
        self.take(leftover)
