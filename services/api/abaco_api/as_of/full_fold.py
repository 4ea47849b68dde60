"""The way to a moment of the past that needs the log alone: fold the history up to it.

It costs the length of the history, so it is taken where the history is short, and where Postgres
cannot answer. The fold is the one that keeps the read models, over the whole history.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from abaco_api.as_of.event_selection import SIGNALS
from abaco_api.as_of.moment import PIECE_ACTORS, Moment
from abaco_api.domain.views import Row
from abaco_jetstream.ports import EventLog
from abaco_proto.envelope import Recorded
from abaco_proto.names import actor_filter, history_filter, type_filter


class FullFold:
    """The read models as they were when the log ended at ``sequence``.

    Every answer raises ``Unknown`` when what is named was not there then, and ``Unavailable``
    when the log does not answer.
    """

    def __init__(self, log: EventLog, tenant: str, sequence: int) -> None:
        self.sequence = sequence
        self._log = log
        self._tenant = tenant
        self._listed: Moment | None = None

    async def actor(self, actor_id: str) -> Row:
        """An actor, with its subscriptions."""
        return (await self._folded(self._definitions(actor_id))).actor(actor_id)

    async def actors(
        self, limit: int, offset: int, after_row: Row | None, only: Sequence[str] | None = None
    ) -> Sequence[Row]:
        """All actors, in the order of their registration: a piece of the list, after a row."""
        if self._listed is None:
            self._listed = await self._folded(self._definitions("*"))
        rest = self._listed.page(limit, offset, after_row, only)
        rows = [self._listed.actor(actor_id) for actor_id in rest[:PIECE_ACTORS]]
        return [{**row, "found": len(rest)} for row in rows]

    async def subscriptions(self, actor_id: str) -> Sequence[Row]:
        """An actor's subscriptions."""
        return (await self._folded(self._definitions(actor_id))).subscriptions(actor_id)

    async def waiting(self, actor_id: str) -> int:
        """How many messages wait."""
        return (await self._history(actor_id)).waiting(actor_id)

    async def executions(self, actor_id: str, limit: int, offset: int) -> Row:
        """An actor's totals, with the ``ids`` of a page of its executions."""
        moment = await self._history(actor_id)
        ids = moment.execution_ids(actor_id, limit, offset)
        return {**moment.actor(actor_id), "ids": ids}

    async def execution(self, actor_id: str, ordinal: int) -> Row:
        """One execution, of a deleted actor, too."""
        return (await self._history(actor_id)).execution_row(actor_id, ordinal)

    async def workers(self, actor_id: str) -> Sequence[Row]:
        """An actor's workers that were live."""
        return (await self._history(actor_id)).live_workers(actor_id)

    async def worker(self, actor_id: str, worker_id: str) -> Row:
        """A worker, live or not."""
        return (await self._history(actor_id)).worker(actor_id, worker_id)

    async def events(self, filters: Sequence[str]) -> AsyncGenerator[Recorded, None]:
        """The events up to the moment."""
        async with aclosing(self._log.read(filters)) as batches:
            async for batch in batches:
                for recorded in batch:
                    if recorded.sequence > self.sequence:
                        return
                    yield recorded
                await asyncio.sleep(0)

    def _definitions(self, actor_id: str) -> list[str]:
        signals = [type_filter(self._tenant, actor_id, kind) for kind in SIGNALS]
        return [actor_filter(self._tenant, actor_id), *signals]

    async def _history(self, actor_id: str) -> Moment:
        return await self._folded([history_filter(self._tenant, actor_id)])

    async def _folded(self, filters: Sequence[str]) -> Moment:
        moment = Moment(self._tenant, self.sequence)
        async with aclosing(self.events(filters)) as events:
            async for recorded in events:
                moment.apply(recorded)
        return moment
