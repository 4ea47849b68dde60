"""How much running sandboxes have written: engines have no limit for it that holds everywhere.

One file is bounded by the kernel (see ``Request.file_bytes``); all files together are looked at
every few seconds, for all containers in one question to the engine. What is written between two
looks is not bounded, so the limit protects the host from a leak, not from an attack.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress

from abaco_proto.errors import Unavailable
from abaco_worker.engine import Engine, EngineFault
from abaco_worker.sandbox import HOST

LOOK_SECONDS = 2.0


class Disks:
    """The running containers of a host that have a limit."""

    def __init__(self, engine: Engine, host_id: str) -> None:
        """Nothing runs yet."""
        self._engine = engine
        self._host_id = host_id
        self._watched: dict[str, tuple[int, asyncio.Event]] = {}

    @contextmanager
    def watched(self, container_id: str, limit: int) -> Generator[asyncio.Event, None, None]:
        """Set once the container has written more than ``limit`` bytes; 0 is no limit."""
        exceeded = asyncio.Event()
        if limit:
            self._watched[container_id] = (limit, exceeded)
        try:
            yield exceeded
        finally:
            self._watched.pop(container_id, None)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._watched:
                with suppress(Unavailable, EngineFault):
                    await self._look()

    async def _look(self) -> None:
        for container_id, written in (await self._engine.written(HOST, self._host_id)).items():
            limit, exceeded = self._watched.get(container_id, (written, None))
            if exceeded is not None and written > limit:
                exceeded.set()
