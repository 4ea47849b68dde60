"""From a container's output to the output log, while it runs."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from abaco_jetstream.ports import OutputLog
from abaco_proto.errors import Unavailable
from abaco_proto.output import Output
from abaco_worker.app.waiting import cancelled
from abaco_worker.domain.output_chunks import CHUNK_BYTES, Chunk, Tally
from abaco_worker.domain.run_spec import Order

FLUSH_SECONDS = 0.1
PAUSE_SECONDS = 0.5


class Recorder:
    """Records the output of one attempt. What it has returned from is acknowledged."""

    def __init__(self, outputs: OutputLog, order: Order, limit: int) -> None:
        """Nothing is recorded yet; ``limit`` as in :class:`Tally`."""
        self._outputs = outputs
        self._tenant = order.recorded.tenant
        self._event = order.assignment
        self.tally = Tally(limit)

    @property
    def full(self) -> bool:
        """Whether nothing more will be recorded."""
        return self.tally.truncated

    async def record(self, output: AsyncGenerator[bytes, None]) -> None:
        """Record output that begins at its very beginning; what was taken before is skipped.

        Reads no further than it can write, so that an output log that is away holds up the
        reading and not the container.
        """
        skip = self.tally.taken
        async with aclosing(output), aclosing(paced(output)) as pieces:
            async for piece in pieces:
                rest, skip = piece[skip:], max(0, skip - len(piece))
                for chunk in self.tally.add(rest):
                    await self._write(chunk)
                if self.full:
                    return

    async def _write(self, chunk: Chunk) -> None:
        output = Output(
            tenant=self._tenant,
            actor_id=self._event.actor_id,
            execution_id=self._event.execution_id,
            attempt=self._event.attempt,
            offset=chunk.offset,
            data=chunk.data,
        )
        while True:
            try:
                return await self._outputs.write(output)
            except Unavailable:
                await asyncio.sleep(PAUSE_SECONDS)


async def paced(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same bytes in fewer pieces: the first at once, then one each ``FLUSH_SECONDS`` or
    ``CHUNK_BYTES``, whichever comes first.
    """
    gathered = bytearray()
    due = 0.0
    reading = asyncio.create_task(_next(pieces))
    try:
        while True:
            patience = max(0.0, due - time.monotonic()) if gathered else None
            await asyncio.wait({reading}, timeout=patience)
            if reading.done():
                if (piece := reading.result()) is None:
                    break
                gathered += piece
                reading = asyncio.create_task(_next(pieces))
            if len(gathered) >= CHUNK_BYTES or time.monotonic() >= due:
                yield bytes(gathered)
                gathered.clear()
                due = time.monotonic() + FLUSH_SECONDS
        if gathered:
            yield bytes(gathered)
    finally:
        await cancelled(reading)


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    try:
        return await anext(pieces)
    except StopAsyncIteration:
        return None
