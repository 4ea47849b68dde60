"""The usage sampler: the last known usage of a container, which the engine forgets at its end.

The first sample follows the start, the last one precedes the end. So the usage of a run shorter
than about a second is too low. Runs in a sandbox have exact figures, from the launcher's report.
"""

import asyncio
from contextlib import suppress

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import ContainerMissing, EngineFault
from abaco_worker.domain.engine_values import ResourceUsage
from abaco_worker.engine.engine_port import Engine

MIN_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 1.0


class UsageSampler:
    """Samples the usage of one container."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.usage = ResourceUsage()

    async def run(self, container_id: str) -> None:
        """Sample until cancelled; failed calls of the engine are skipped."""
        pause = MIN_PAUSE_SECONDS
        while True:
            with suppress(Unavailable, EngineFault, ContainerMissing):
                self._merge(await self._engine.usage(container_id))
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _merge(self, usage: ResourceUsage) -> None:
        """Keep the maximum: the engine reports zero for a container that has just exited."""
        self.usage = ResourceUsage(
            cpu_ns=max(self.usage.cpu_ns, usage.cpu_ns),
            io_bytes=max(self.usage.io_bytes, usage.io_bytes),
        )
