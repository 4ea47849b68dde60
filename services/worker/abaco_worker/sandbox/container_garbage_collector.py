"""The container garbage collector: removes containers that nothing uses any more."""

import asyncio
import logging
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.engine.engine_port import Engine
from abaco_worker.sandbox.launcher_client import request_exit
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0
MAX_PAUSE_SECONDS = 60.0

EXIT_SECONDS = 10.0
"""How long the engine may take to notice that a container has exited."""


class UnusedContainer(msgspec.Struct, frozen=True):
    """A container, by id or name, and the path of its sandbox directory if it has one."""

    container: str
    directory: Path | None = None


class ContainerGarbageCollector:
    """Removes containers and their directories in the background.

    The queue is in memory. A restarted worker finds unused containers again by their labels.
    Containers are removed one after another. One whose removal fails goes to a second queue, after
    a pause that doubles, so that it never delays the others.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: asyncio.Queue[UnusedContainer] = asyncio.Queue()
        self._retries: asyncio.Queue[UnusedContainer] = asyncio.Queue()
        self._failures: dict[UnusedContainer, int] = {}

    @property
    def waiting(self) -> int:
        """How many containers are to be removed, failed removals included."""
        return self._queue.qsize() + len(self._failures)

    @property
    def backlog(self) -> int:
        """How many wait behind the one that is being removed; failed removals do not count."""
        return self._queue.qsize()

    def collect(self, unused: UnusedContainer) -> None:
        """Remove a container and then its directory, in the background."""
        if unused not in self._failures:
            self._queue.put_nowait(unused)

    async def run(self) -> None:
        """Remove containers until cancelled: one after another, the directories concurrently."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._remove_each(self._queue, tasks))
            tasks.create_task(self._remove_each(self._retries, tasks))

    async def _remove_each(
        self, queue: "asyncio.Queue[UnusedContainer]", tasks: asyncio.TaskGroup
    ) -> None:
        while True:
            unused = await queue.get()
            try:
                await self._remove_container(unused)
            except (Unavailable, EngineFault) as error:
                self._retry_later(unused, error)
            else:
                _raise_if_cancelled()
                tasks.create_task(self._remove_directory(unused))

    async def _remove_container(self, unused: UnusedContainer) -> None:
        """Stop it through its launcher if possible: the engine would start a program for it."""
        exits = unused.directory is not None and await request_exit(
            SandboxDirectory(unused.directory)
        )
        exit_seconds = EXIT_SECONDS if exits else 0.0
        await self._engine.remove(unused.container, exit_seconds=exit_seconds)

    async def _remove_directory(self, unused: UnusedContainer) -> None:
        """Remove the directory last: until then a restarted worker still finds the container."""
        try:
            if unused.directory is not None:
                with suppress(FileNotFoundError):
                    await asyncio.to_thread(_remove_tree, unused.directory)
        except OSError as error:
            self._retry_later(unused, error)
        else:
            self._failures.pop(unused, None)

    def _retry_later(self, unused: UnusedContainer, error: Exception) -> None:
        failures = self._failures.get(unused, 0) + 1
        self._failures[unused] = failures
        seconds = min(PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), MAX_PAUSE_SECONDS)
        logger.warning(
            "container %s was not removed (%s); the next attempt is in %g s. If this repeats, see"
            " docs/how-to/outages.md",
            unused.container,
            error,
            seconds,
        )
        asyncio.get_running_loop().call_later(seconds, self._retries.put_nowait, unused)


def _raise_if_cancelled() -> None:
    """Raise a cancellation that came in the instant of a result.

    In Python 3.11, ``asyncio.wait_for`` swallows it (CPython #86296), and a task group that ends
    accepts no task.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _remove_tree(directory: Path) -> None:
    """Remove a sandbox directory.

    What programs wrote can be deeper than Python can recurse, so another program removes it.
    """
    layers = SandboxDirectory(directory).layers
    if layers.exists():
        removal = subprocess.run(  # noqa: S603 - the path is ours
            ["nice", "rm", "-r", "-f", "--", str(layers)],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if removal.returncode:
            error = removal.stderr.decode(errors="replace").strip()
            raise OSError(error[-200:] or f"{layers} was not removed")
    shutil.rmtree(directory)
