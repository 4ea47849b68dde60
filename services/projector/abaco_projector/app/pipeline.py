"""The pipeline: prepares the next batch of events while the last one is written.

Python prepares and Postgres writes, so each uses its own processor. A batch is prepared from
cached states, as if the previous batch had been written. If that write fails, the cache is
cleared, the failed batch is applied on its own, and the next batch is prepared again.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from abaco_projector.adapters.read_model_store import ReadModelStore
from abaco_projector.app.projection import Projection, apply, read_ahead
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Conflict, Undecodable


async def project_events(
    projection: Projection[Recorded], store: ReadModelStore, size: int, after: int
) -> None:
    """As :func:`abaco_projector.app.projection.project`, with a pipeline."""
    batches = read_ahead(projection.follow(after), size, projection.debounced)
    async with aclosing(run_pipeline(projection, store, batches, after)) as steps:
        async for _ in steps:
            pass


async def run_pipeline(
    projection: Projection[Recorded],
    store: ReadModelStore,
    batches: AsyncGenerator[Sequence[Recorded], None],
    after: int,
) -> AsyncGenerator[int, None]:
    """Apply all batches after ``after``; yield the size of each when it is prepared."""
    background = _BackgroundWrite(projection, store)
    try:
        async with aclosing(batches):
            async for batch in batches:
                if batch:
                    await background.start(batch, after)
                    after = batch[-1].sequence
                    yield len(batch)
                else:
                    await background.wait_until_written()
        await background.wait_until_written()
    finally:
        await background.cancel()


class _BackgroundWrite:
    """The batch that is being written, if any, and the sequence before it."""

    def __init__(self, projection: Projection[Recorded], store: ReadModelStore) -> None:
        self._projection = projection
        self._store = store
        self._batch: Sequence[Recorded] = ()
        self._after = 0
        self._task: asyncio.Future[None] | None = None

    async def start(self, batch: Sequence[Recorded], after: int) -> None:
        """Prepare a batch, and start to write it once the previous write ends."""
        try:
            prepared = await self._store.prepare(
                batch, after=after, wait_for_write=self.wait_until_written
            )
            if not await self._write_succeeded():
                prepared = await self._store.prepare(batch, after=after)
        except Undecodable:
            if self._store.buffers_writes:
                raise
            await self._write_succeeded()
            await apply(self._projection, self._store, batch, after)
        else:
            self._batch, self._after = batch, after
            write = self._projection.instrument(batch, lambda: self._store.write(prepared))
            self._task = asyncio.ensure_future(write)

    async def wait_until_written(self) -> None:
        """Wait until nothing is being written."""
        await self._write_succeeded()

    async def _write_succeeded(self) -> bool:
        """Wait as well; return False if batches prepared meanwhile are invalid."""
        task, self._task = self._task, None
        if task is None:
            return True
        try:
            await task
        except (Undecodable, Conflict):
            if self._store.buffers_writes:
                raise
            await apply(self._projection, self._store, self._batch, self._after)
            return False
        return True

    async def cancel(self) -> None:
        """Cancel the write in progress."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
