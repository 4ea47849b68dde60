"""Answers about a moment of the past from few events and rows, found by indexes in Postgres."""

import asyncio
from collections.abc import Collection, Sequence

from msgspec.structs import asdict

from abaco_api.as_of.event_selection import EventSelection
from abaco_api.as_of.moment import PIECE_ACTORS, WAITING, Moment
from abaco_api.domain.views import Row
from abaco_api.queries.past_rows import MAX_UNDETERMINED, PastRows
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution
from abaco_proto.fold import Totals, counted


class NotIndexed(Exception):
    """The answer needs a fold of the whole history."""


class IndexedAnswers:
    """The read models as they were at ``sequence``, which Postgres has projected.

    Every answer raises ``Unknown`` when what is named was not there then, ``NotIndexed`` where
    only a fold of the whole history can tell, and ``Unavailable`` when Postgres does not answer.
    """

    def __init__(self, rows: PastRows, tenant: str, sequence: int) -> None:
        self._rows = rows
        self._selection = EventSelection(rows, sequence)
        self._tenant = tenant
        self._sequence = sequence

    async def is_long(self, actor_id: str, count: int) -> bool:
        """Whether the actor had more than ``count`` events."""
        return await self._rows.is_longer(actor_id, self._sequence, count)

    async def actor(self, actor_id: str) -> dict[str, object]:
        """An actor, with its subscriptions."""
        return (await self._of_actor(actor_id)).actor(actor_id)

    async def actors(
        self, limit: int, offset: int, after_row: Row | None, only: Sequence[str] | None = None
    ) -> Sequence[Row]:
        """All actors, in the order of their registration: a piece of the list, after a row."""
        found = await self._rows.actors(self._sequence, limit, offset, after_row, only)
        rows = await asyncio.gather(*map(self.actor, found[:PIECE_ACTORS]))
        return [{**row, "found": len(found)} for row in rows]

    async def subscriptions(self, actor_id: str) -> Sequence[Row]:
        """An actor's subscriptions."""
        return (await self._of_actor(actor_id)).subscriptions(actor_id)

    async def waiting(self, actor_id: str) -> int:
        """How many messages wait."""
        self._folded(await self._selection.of_existence(actor_id)).actor(actor_id)
        _, waiting = await self._totals(actor_id)
        return waiting

    async def executions(self, actor_id: str, limit: int, offset: int) -> Row:
        """An actor's totals, with the ``ids`` of a page of its executions."""
        row = self._folded(await self._selection.of_existence(actor_id)).actor(actor_id)
        totals, _ = await self._totals(actor_id)
        end = totals.total_executions
        ids = await self._rows.execution_ids(actor_id, self._sequence, offset, end, limit)
        return {**row, **asdict(totals), "ids": ids}

    async def execution(self, actor_id: str, ordinal: int) -> Row:
        """One execution, of a deleted actor, too."""
        events = await self._selection.of_executions(actor_id, [ordinal])
        return self._folded(events).execution_row(actor_id, ordinal)

    async def workers(self, actor_id: str) -> Sequence[Row]:
        """An actor's workers that were live."""
        live = await self._rows.live_workers(actor_id, self._sequence)
        return self._folded(await self._selection.of_workers(actor_id, live)).live_workers(actor_id)

    async def worker(self, actor_id: str, worker_id: str) -> Row:
        """A worker, live or not."""
        events = await self._selection.of_workers(actor_id, [worker_id])
        return self._folded(events).worker(actor_id, worker_id)

    async def _of_actor(self, actor_id: str) -> Moment:
        return self._folded(await self._selection.of_actor(actor_id))

    async def _totals(self, actor_id: str) -> tuple[Totals, int]:
        """The totals of an actor, and how many of its messages waited."""
        found = await self._rows.totals(actor_id, self._sequence)
        totals, waiting = found.totals, found.waiting
        if len(found.undetermined) > MAX_UNDETERMINED:
            raise NotIndexed
        for execution in await self._executions(actor_id, found.undetermined):
            totals = counted(totals, Execution(), execution)
            waiting += execution.status in WAITING
        return totals, waiting

    async def _executions(self, actor_id: str, ordinals: Collection[int]) -> list[Execution]:
        if not ordinals:
            return []
        moment = self._folded(await self._selection.of_executions(actor_id, ordinals))
        found = [moment.execution(actor_id, ordinal) for ordinal in ordinals]
        return [execution for execution in found if execution is not None]

    def _folded(self, events: Sequence[Recorded]) -> Moment:
        moment = Moment(self._tenant, self._sequence)
        for recorded in events:
            if isinstance(recorded.event, ev.Unrecognized):
                raise NotIndexed
            moment.apply(recorded)
        return moment
