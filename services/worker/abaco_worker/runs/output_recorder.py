"""The output recorder: writes an attempt's output to the output log while it runs."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from abaco_jetstream.ports import OutputLog
from abaco_proto.errors import Unavailable
from abaco_proto.output import Output
from abaco_worker.app.waiting import cancel_and_wait
from abaco_worker.domain.output_counter import CHUNK_BYTES, OutputChunk, OutputCounter
from abaco_worker.domain.run_spec import RunSpec

FLUSH_SECONDS = 0.1
PAUSE_SECONDS = 0.5


class OutputRecorder:
    """Records the output of one attempt. When :meth:`record` returns, the log has stored it."""

    def __init__(self, outputs: OutputLog, run_spec: RunSpec, limit: int) -> None:
        """``limit`` is that of :class:`OutputCounter`."""
        self._outputs = outputs
        self._tenant = run_spec.recorded.tenant
        self._event = run_spec.assignment
        self.counter = OutputCounter(limit)

    async def record(self, output: AsyncGenerator[bytes, None]) -> None:
        """Record output from its beginning; skip what this recorder has read before.

        If the output log is unavailable, the reading waits and the container does not.
        """
        skip = self.counter.read_bytes
        async with aclosing(output), aclosing(coalesced(output)) as pieces:
            async for piece in pieces:
                rest, skip = piece[skip:], max(0, skip - len(piece))
                for chunk in self.counter.add(rest):
                    await self._write(chunk)
                if self.counter.truncated:
                    return

    async def _write(self, chunk: OutputChunk) -> None:
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
            except Unavailable:  # the connection logs the outage
                await asyncio.sleep(PAUSE_SECONDS)


async def coalesced(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the same bytes in fewer pieces: the first one at once, then one per ``FLUSH_SECONDS``
    or per ``CHUNK_BYTES``, whichever comes first.
    """
    buffer = bytearray()
    flush_at = 0.0
    reading = asyncio.create_task(_next(pieces))
    try:
        while True:
            timeout = max(0.0, flush_at - time.monotonic()) if buffer else None
            await asyncio.wait({reading}, timeout=timeout)
            if reading.done():
                if (piece := reading.result()) is None:
                    break
                buffer += piece
                reading = asyncio.create_task(_next(pieces))
            if len(buffer) >= CHUNK_BYTES or time.monotonic() >= flush_at:
                yield bytes(buffer)
                buffer.clear()
                flush_at = time.monotonic() + FLUSH_SECONDS
        if buffer:
            yield bytes(buffer)
    finally:
        await cancel_and_wait(reading)


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    try:
        return await anext(pieces)
    except StopAsyncIteration:
        return None
