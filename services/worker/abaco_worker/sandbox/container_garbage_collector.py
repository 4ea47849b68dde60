"""Removes containers nobody needs any more, in the background of the next run."""

import asyncio
import logging
import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.engine.engine_port import Engine
from abaco_worker.sandbox.launcher_client import leave
from abaco_worker.sandbox.sandbox_directory import Place

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
GONE_SECONDS = 10.0
"""How long the engine may take to see that a launcher has gone."""


class Leftover(msgspec.Struct, frozen=True):
    """A container, by id or name, and the folder of the host that goes with it."""

    container: str
    folder: Path | None = None


class Sweeper:
    """What waits to be removed. It is lost in a crash, and found again by its labels.

    Containers are removed one after another. One that could not be removed is tried again on a
    second queue, after a pause that doubles, so that it never delays the others.
    """

    def __init__(self, engine: Engine) -> None:
        """Nothing waits yet."""
        self._engine = engine
        self._waiting: asyncio.Queue[Leftover] = asyncio.Queue()
        self._retries: asyncio.Queue[Leftover] = asyncio.Queue()
        self._failures: dict[Leftover, int] = {}

    @property
    def waiting(self) -> int:
        """How many are still to be removed, those that could not be removed among them."""
        return self._waiting.qsize() + len(self._failures)

    def take(self, leftover: Leftover) -> None:
        """Remove a container soon, and then its folder."""
        if leftover not in self._failures:
            self._waiting.put_nowait(leftover)

    @property
    def behind(self) -> int:
        """How many wait, beside the one that is being removed and those that could not be."""
        return self._waiting.qsize()

    async def run(self) -> None:
        """Remove what comes until cancelled: containers one after another, folders beside them."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._remove_each(self._waiting, tasks))
            tasks.create_task(self._remove_each(self._retries, tasks))

    async def _remove_each(
        self, queue: "asyncio.Queue[Leftover]", tasks: asyncio.TaskGroup
    ) -> None:
        while True:
            leftover = await queue.get()
            try:
                await self._end(leftover)
            except (Unavailable, EngineFault) as error:
                self._retry_later(leftover, error)
            else:
                tasks.create_task(self._clear(leftover))

    async def _end(self, leftover: Leftover) -> None:
        """A launcher goes when it is asked; that spares the engine a program that kills it."""
        goes = leftover.folder is not None and await leave(Place(leftover.folder))
        patience = GONE_SECONDS if goes else 0.0
        await self._engine.remove(leftover.container, patience_seconds=patience)

    async def _clear(self, leftover: Leftover) -> None:
        """The folder last: while it is there, a worker that comes back knows of the rest."""
        try:
            if leftover.folder is not None:
                with suppress(FileNotFoundError):
                    await asyncio.to_thread(shutil.rmtree, leftover.folder)
        except OSError as error:
            self._retry_later(leftover, error)
        else:
            self._failures.pop(leftover, None)

    def _retry_later(self, leftover: Leftover, error: Exception) -> None:
        failures = self._failures.get(leftover, 0) + 1
        self._failures[leftover] = failures
        seconds = min(PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
        logger.warning(
            "container %s not removed: %s; retry in %g s", leftover.container, error, seconds
        )
        asyncio.get_running_loop().call_later(seconds, self._retries.put_nowait, leftover)
