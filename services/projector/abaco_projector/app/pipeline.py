"""Events in a flow: the next batch is prepared while the last one is being written.

Theory: preparing is Python's work and writing is Postgres', so each has a processor of its own. A
batch is prepared out of what the store remembers, as if the one before it were written already;
should that fail, nothing of it is remembered, the failed batch is applied alone, step by step,
and the next is prepared anew.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from abaco_projector.adapters.read_model_store import Store
from abaco_projector.app.projection import Projection, ahead, apply
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Conflict, Undecodable


async def project_events(
    projection: Projection[Recorded], store: Store, size: int, after: int
) -> None:
    """As :func:`abaco_projector.app.projection.project`."""
    batches = ahead(projection.follow(after), size, projection.patient)
    async with aclosing(flow(projection, store, batches, after)) as steps:
        async for _ in steps:
            pass


async def flow(
    projection: Projection[Recorded],
    store: Store,
    batches: AsyncGenerator[Sequence[Recorded], None],
    after: int,
) -> AsyncGenerator[int, None]:
    """Apply all batches behind ``after``; gives the size of each when it is prepared."""
    writing = _Writing(projection, store)
    try:
        async with aclosing(batches):
            async for batch in batches:
                if batch:
                    await writing.begin(batch, after)
                    after = batch[-1].sequence
                    yield len(batch)
                else:
                    await writing.settle()
        await writing.settle()
    finally:
        await writing.cancel()


class _Writing:
    """The batch that is being written, if any, and the sequence it is behind."""

    def __init__(self, projection: Projection[Recorded], store: Store) -> None:
        self._projection = projection
        self._store = store
        self._batch: Sequence[Recorded] = ()
        self._after = 0
        self._task: asyncio.Future[None] | None = None

    async def begin(self, batch: Sequence[Recorded], after: int) -> None:
        """Prepare a batch, and begin to write it as soon as the last one is written."""
        try:
            prepared = await self._store.prepare(batch, after=after, settle=self.settle)
            if not await self._settled():
                prepared = await self._store.prepare(batch, after=after)
        except Undecodable:
            if self._store.defers:
                raise
            await self._settled()
            await apply(self._projection, self._store, batch, after)
        else:
            self._batch, self._after = batch, after
            writing = self._projection.watch(batch, lambda: self._store.write(prepared))
            self._task = asyncio.ensure_future(writing)

    async def settle(self) -> None:
        """Until nothing is being written."""
        await self._settled()

    async def _settled(self) -> bool:
        """The same; whether what was prepared meanwhile still holds."""
        task, self._task = self._task, None
        if task is None:
            return True
        try:
            await task
        except (Undecodable, Conflict):
            if self._store.defers:
                raise
            await apply(self._projection, self._store, self._batch, self._after)
            return False
        return True

    async def cancel(self) -> None:
        """Break off."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
