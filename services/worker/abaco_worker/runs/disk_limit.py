"""The disk limit of runs. The worker enforces it: no engine has one for all storage drivers.

Each run that has a limit is measured every few seconds. What a program writes
between two measurements is not bounded. So the limit protects the host from a leak, not from an
attack.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from abaco_proto.errors import Unavailable
from abaco_worker.app.waiting import cancel_and_wait
from abaco_worker.domain.engine_errors import ContainerMissing, EngineFault
from abaco_worker.engine.docker_disk_usage import DiskUsageWalker
from abaco_worker.engine.engine_port import Engine
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory

logger = logging.getLogger(__name__)

MEASURE_SECONDS = 2.0

PAUSE_FACTOR = 4.0
"""The pause after a measurement, relative to its duration: measuring never keeps a disk busy."""


class DiskMonitor:
    """Measures the runs of a host."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._walker = DiskUsageWalker()

    @asynccontextmanager
    async def monitored(
        self, container_id: str, limit: int, sandbox: SandboxDirectory | None = None
    ) -> AsyncGenerator[asyncio.Event, None]:
        """Measure a run in the block. The event is set if it wrote more than ``limit`` bytes.

        A limit of 0 is none. Without ``sandbox``, all that the container has written is counted,
        else what was written in the sandbox that is in the container now.
        """
        exceeded = asyncio.Event()
        task: asyncio.Task[None] | None = None

        async def measure() -> int:
            if sandbox is None:
                return await self._engine.written(container_id)
            return await self._walker.bytes_below(sandbox.layer_folders())

        if limit:
            task = asyncio.create_task(self._measure(container_id, limit, exceeded, measure))
        try:
            yield exceeded
        finally:
            await cancel_and_wait(task)

    async def _measure(
        self,
        container_id: str,
        limit: int,
        exceeded: asyncio.Event,
        measure: Callable[[], Awaitable[int]],
    ) -> None:
        pause, logged = MEASURE_SECONDS, ""
        while not exceeded.is_set():
            await asyncio.sleep(pause)
            begin = time.monotonic()
            try:
                if await measure() > limit:
                    exceeded.set()
            except (Unavailable, EngineFault, ContainerMissing, OSError) as error:
                if str(error) != logged:
                    logged = str(error)
                    logger.warning(
                        "the disk usage of container %s is unknown (%s), so max_disk_bytes is not"
                        " enforced; the worker measures it again. If this repeats, check the"
                        " container engine",
                        container_id[:12],
                        error,
                    )
            pause = max(MEASURE_SECONDS, PAUSE_FACTOR * (time.monotonic() - begin))
