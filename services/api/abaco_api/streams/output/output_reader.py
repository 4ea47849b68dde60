"""One reader of one execution's output: what there is, then what comes, up to its end.

Theory: the output stream has a chunk a moment after it was written, so that is what is followed.
It forgets by age and size; what it has no more is filled in from Postgres. The end of a run is in
the log behind its last output and says how much that was: a reader is done when that much has
come, or will not come any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

import msgspec

from abaco_api.domain.views import Row
from abaco_api.queries.read_models import ReadModels
from abaco_api.streams.domain.output_offset import Place
from abaco_api.streams.domain.transcript import Piece, Transcript
from abaco_api.streams.output.end_watch import Watch
from abaco_jetstream.ports import OutputBatch, OutputLog
from abaco_proto.errors import Unavailable
from abaco_proto.execution import ENDED

Emit = Callable[[Piece | None], Awaitable[None]]
"""Takes the next text; None says that there was none for a while."""

HEARTBEAT_SECONDS = 5.0
QUIET_SECONDS = 0.3
"""By then all has come that was written by attempts whose end nobody reported."""

STORED_CHUNKS = 64
WAITING_BATCHES = 4


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where output and ends are told.

    ``patience``: how many seconds after a run's end its output may still come.
    """

    outputs: OutputLog
    models: ReadModels
    watch: Watch
    tenant: str
    patience: float


class Reader:
    """Reads once."""

    def __init__(self, sources: Sources, row: Row, begin: Place, emit: Emit) -> None:
        """``row`` is that of the execution; text from ``begin`` on goes to ``emit``."""
        self._sources = sources
        self._row = row
        self._transcript = Transcript(begin)
        self._emit = emit

    async def read(self) -> Row:
        """Read up to the end of the execution; its row then."""
        row = self._row
        if row["status"] in ENDED:
            await self._fill(row["attempt"])
        if not self._is_whole(row):
            row = await self._follow()
        await self._pass_on(self._transcript.finish())
        return row

    async def _follow(self) -> Row:
        news: asyncio.Queue[OutputBatch | Row] = asyncio.Queue(WAITING_BATCHES)
        tasks = {asyncio.create_task(self._hear(news)), asyncio.create_task(self._wait(news))}
        try:
            return await self._take(news)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _hear(self, news: "asyncio.Queue[OutputBatch | Row]") -> None:
        """The execution's output, in a queue that holds it back when the reader is slow."""
        following = self._sources.outputs.follow_execution(
            self._sources.tenant, self._row["actor_id"], self._row["execution_id"]
        )
        async with aclosing(following) as batches:
            async for batch in batches:
                await news.put(batch)

    async def _wait(self, news: "asyncio.Queue[OutputBatch | Row]") -> None:
        """Its end, in the same queue."""
        key = (self._row["actor_id"], self._row["ordinal"])
        await news.put(await self._sources.watch.end(key))

    async def _take(self, news: "asyncio.Queue[OutputBatch | Row]") -> Row:
        clock = asyncio.get_running_loop().time
        ended: Row | None = None
        until = float("inf")
        while ended is None or not self._is_whole(ended):
            try:
                async with asyncio.timeout_at(min(until, clock() + HEARTBEAT_SECONDS)):
                    found = await news.get()
            except asyncio.TimeoutError:
                if ended is not None and clock() >= until:
                    await self._fill(ended["attempt"])
                    return ended
                await self._emit(None)
                continue
            if isinstance(found, OutputBatch):
                await self._on_batch(found)
            elif ended is None:
                ended, until = found, clock() + self._patience(found)
        return ended

    async def _on_batch(self, batch: OutputBatch) -> None:
        if not batch.chunks:  # the stream has nothing of it, or nothing any more
            await self._fill(self._row["attempt"])
        for output in (chunk.output for chunk in batch.chunks):
            if self._transcript.misses(output.attempt, output.offset):
                await self._fill(output.attempt)
            await self._pass_on(self._transcript.add(output.attempt, output.offset, output.data))

    async def _fill(self, attempt: int) -> None:
        """What is stored of an attempt behind what has come. Without Postgres that is nothing."""
        transcript, found = self._transcript, STORED_CHUNKS
        with suppress(Unavailable):
            # A reader may begin at a later attempt than the row's: it has all of the older ones.
            while attempt and attempt >= transcript.attempt and found == STORED_CHUNKS:
                start = transcript.end if attempt == transcript.attempt else 0
                rows = await self._sources.models.output_from(
                    self._row["execution_id"], attempt, start, STORED_CHUNKS
                )
                found = len(rows)
                for row in rows:
                    data = bytes(row["data"])
                    await self._pass_on(transcript.add(attempt, row["output_offset"], data))

    async def _pass_on(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            await self._emit(piece)

    def _is_whole(self, row: Row) -> bool:
        """Whether an execution has ended and all its output has come."""
        if row["status"] not in ENDED:
            return False
        if row["final_state"] is None:
            return not row["attempt"]  # it never ran
        come = self._transcript.end if self._transcript.attempt == row["attempt"] else 0
        return bool(come >= row["log_bytes"])

    def _patience(self, row: Row) -> float:
        return QUIET_SECONDS if row["final_state"] is None else self._sources.patience
