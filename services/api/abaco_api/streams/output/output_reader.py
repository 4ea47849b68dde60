"""One reader of one execution's output: what is stored, then what is written, up to its end.

The output stream has a chunk right after it was written, so the reader follows it. The stream
drops chunks by age and size; those are read from Postgres. The end of a run has the number of bytes
of its output: the reader ends when it has received that many, or after a timeout.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

import msgspec

from abaco_api.domain.views import Row
from abaco_api.queries.read_models import ReadModels
from abaco_api.streams.domain.output_offset import OutputOffset
from abaco_api.streams.domain.transcript import Piece, Transcript
from abaco_api.streams.output.end_poller import EndPoller
from abaco_jetstream.ports import OutputBatch, OutputLog
from abaco_proto.errors import Unavailable
from abaco_proto.execution import ENDED

Emit = Callable[[Piece | None], Awaitable[None]]
"""Sends the next text; None when there was none for a while."""

HEARTBEAT_SECONDS = 5.0
QUIET_SECONDS = 0.3
"""How long output may still arrive of attempts whose end was not reported."""

STORED_CHUNKS = 64
WAITING_BATCHES = 4


class OutputSources(msgspec.Struct, frozen=True, kw_only=True):
    """Where a reader gets output and ends from.

    ``output_timeout``: how many seconds after a run's end its output may still arrive.
    """

    outputs: OutputLog
    models: ReadModels
    watch: EndPoller
    tenant: str
    output_timeout: float


class OutputReader:
    """Reads the output of one execution, once."""

    def __init__(self, sources: OutputSources, row: Row, begin: OutputOffset, emit: Emit) -> None:
        """``row`` is that of the execution; text from ``begin`` on goes to ``emit``."""
        self._sources = sources
        self._row = row
        self._transcript = Transcript(begin)
        self._emit = emit

    async def read(self) -> Row:
        """Read up to the end of the execution; its row then."""
        row = self._row
        if row["status"] in ENDED:
            await self._read_stored(row["attempt"])
        if not self._is_whole(row):
            row = await self._follow()
        await self._emit_all(self._transcript.finish())
        return row

    async def _follow(self) -> Row:
        received: asyncio.Queue[OutputBatch | Row] = asyncio.Queue(WAITING_BATCHES)
        tasks = {
            asyncio.create_task(self._receive_output(received)),
            asyncio.create_task(self._receive_end(received)),
        }
        try:
            return await self._process(received)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _receive_output(self, received: "asyncio.Queue[OutputBatch | Row]") -> None:
        """Put the output into a queue, which is full while the reader is slow."""
        following = self._sources.outputs.follow_execution(
            self._sources.tenant, self._row["actor_id"], self._row["execution_id"]
        )
        async with aclosing(following) as batches:
            async for batch in batches:
                await received.put(batch)

    async def _receive_end(self, received: "asyncio.Queue[OutputBatch | Row]") -> None:
        """Put the end into the same queue."""
        key = (self._row["actor_id"], self._row["ordinal"])
        await received.put(await self._sources.watch.end(key))

    async def _process(self, received: "asyncio.Queue[OutputBatch | Row]") -> Row:
        clock = asyncio.get_running_loop().time
        ended: Row | None = None
        until = float("inf")
        while ended is None or not self._is_whole(ended):
            try:
                async with asyncio.timeout_at(min(until, clock() + HEARTBEAT_SECONDS)):
                    found = await received.get()
            except asyncio.TimeoutError:
                if ended is not None and clock() >= until:
                    await self._read_stored(ended["attempt"])
                    return ended
                await self._emit(None)
                continue
            if isinstance(found, OutputBatch):
                await self._on_batch(found)
            elif ended is None:
                ended, until = found, clock() + self._output_timeout(found)
        return ended

    async def _on_batch(self, batch: OutputBatch) -> None:
        if not batch.chunks:  # the stream has none of it, or no longer
            await self._read_stored(self._row["attempt"])
        for output in (chunk.output for chunk in batch.chunks):
            if self._transcript.misses(output.attempt, output.offset):
                await self._read_stored(output.attempt)
            await self._emit_all(self._transcript.add(output.attempt, output.offset, output.data))

    async def _read_stored(self, attempt: int) -> None:
        """Read what Postgres has of an attempt, after what was received, if it answers."""
        transcript, found = self._transcript, STORED_CHUNKS
        with suppress(Unavailable):
            # A reader may begin at a later attempt than the row's: then it has all older output.
            while attempt and attempt >= transcript.attempt and found == STORED_CHUNKS:
                start = transcript.end if attempt == transcript.attempt else 0
                rows = await self._sources.models.output_from(
                    self._row["execution_id"], attempt, start, STORED_CHUNKS
                )
                found = len(rows)
                for row in rows:
                    data = bytes(row["data"])
                    await self._emit_all(transcript.add(attempt, row["output_offset"], data))

    async def _emit_all(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            await self._emit(piece)

    def _is_whole(self, row: Row) -> bool:
        """Whether an execution has ended and all its output was received."""
        if row["status"] not in ENDED:
            return False
        if row["final_state"] is None:
            return not row["attempt"]  # it never ran
        come = self._transcript.end if self._transcript.attempt == row["attempt"] else 0
        return bool(come >= row["log_bytes"])

    def _output_timeout(self, row: Row) -> float:
        return QUIET_SECONDS if row["final_state"] is None else self._sources.output_timeout
