"""How much a run has written to the disk: engines have no limit for it that holds everywhere.

Each running container that has a limit is measured every few seconds. What is written between two
measurements is not bounded, so the limit protects the host from a leak, not from an attack.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from abaco_proto.errors import Unavailable
from abaco_worker.app.waiting import cancelled
from abaco_worker.domain.engine_errors import ContainerMissing, EngineFault
from abaco_worker.engine.engine_port import Engine

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0

SHARE = 4.0
"""A measurement that took one second is repeated after so many: it never keeps a disk busy."""


class Disks:
    """Measures the running containers of a host."""

    def __init__(self, engine: Engine) -> None:
        """Nothing runs yet."""
        self._engine = engine

    @asynccontextmanager
    async def watched(self, container_id: str, limit: int) -> AsyncGenerator[asyncio.Event, None]:
        """Set once the container has written more than ``limit`` bytes; 0 is no limit."""
        exceeded = asyncio.Event()
        watch = self._watch(container_id, limit, exceeded)
        watching = asyncio.create_task(watch) if limit else None
        if watching is None:
            watch.close()
        try:
            yield exceeded
        finally:
            await cancelled(watching)

    async def _watch(self, container_id: str, limit: int, exceeded: asyncio.Event) -> None:
        pause, said = LOOK_SECONDS, ""
        while not exceeded.is_set():
            await asyncio.sleep(pause)
            begun = time.monotonic()
            try:
                if await self._engine.written(container_id) > limit:
                    exceeded.set()
            except (Unavailable, EngineFault, ContainerMissing, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("container %s cannot be measured: %s", container_id[:12], said)
            pause = max(LOOK_SECONDS, SHARE * (time.monotonic() - begun))
