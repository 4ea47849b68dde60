"""What a running container uses, sampled: engines forget it at the end.

The first sample comes right after the start, and the last is the one before the end, so a run of
less than a second or so is under-counted. Exact figures need a report from inside the container,
which is to come with another way of starting it.
"""

import asyncio
from contextlib import suppress

from abaco_proto.errors import Unavailable
from abaco_worker.domain.containers import Usage
from abaco_worker.domain.engine_errors import ContainerMissing, EngineFault
from abaco_worker.engine.engine_port import Engine

SHORTEST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0


class Sampler:
    """The usage of one container, as last seen."""

    def __init__(self, engine: Engine) -> None:
        """Nothing is seen yet."""
        self._engine = engine
        self.usage = Usage()

    async def run(self, container_id: str) -> None:
        """Sample until cancelled; what the engine does not tell is left out."""
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            with suppress(Unavailable, EngineFault, ContainerMissing):
                self._see(await self._engine.usage(container_id))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _see(self, usage: Usage) -> None:
        """Counters only rise; an engine answers zero for a container that has just ended."""
        self.usage = Usage(
            cpu_ns=max(self.usage.cpu_ns, usage.cpu_ns),
            io_bytes=max(self.usage.io_bytes, usage.io_bytes),
        )
