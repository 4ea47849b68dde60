"""One moment of the past: the same questions as to the read models, answered by a fold.

The fold is the one that the projector keeps the read models with, over the history up to the
moment. It takes in what a question needs, and no more.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime

from abaco_api.as_of import folded_rows
from abaco_api.as_of.fold_slots import FoldSlots
from abaco_api.domain.views import Row
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.actor import INITIAL, Actor, ActorStatus
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable, Unknown
from abaco_proto.execution import ExecutionStatus
from abaco_proto.fold import Fold, Totals
from abaco_proto.subjects import actor_filter, history_filter, type_filter

WAITING = (ExecutionStatus.SUBMITTED, ExecutionStatus.ASSIGNED)
SPEAK_OF_AN_ACTOR = (ev.WorkerReady, ev.WorkerFailed, ev.ExecutionStarted)
"""What beside ``actor.*`` changes an actor."""


PIECE = 16
"""So many actors of a list are made rows at once: a state may be long."""


class Moment(Fold):
    """A fold that remembers since when subscriptions are there: their order is by that."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed: dict[str, dict[str, datetime]] = {}

    def apply(self, recorded: Recorded) -> None:
        """Take in one more event."""
        super().apply(recorded)
        event = recorded.event
        if isinstance(event, ev.ActorSubscribed):
            self.subscribed.setdefault(event.actor_id, {})[event.subscription_id] = recorded.time


class Past:
    """The read models as they were when the log ended at ``sequence``.

    Every method raises ``Unknown`` when what is named was not there then, and ``Unavailable``
    when the log does not answer, or its history is too long to be read in ``seconds``; and
    ``TooMany`` when the process reads as many histories as it may.
    """

    def __init__(
        self, log: EventLog, tenant: str, sequence: int, seconds: float, slots: FoldSlots
    ) -> None:
        self.sequence = sequence
        self._slots = slots
        self._log = log
        self._tenant = tenant
        self._seconds = seconds
        self._listed: tuple[Moment, list[Actor]] | None = None

    async def actor(self, actor_id: str) -> Row:
        """An actor, with its subscriptions."""
        return self._actor(await self._folded(self._definitions(actor_id)), actor_id)

    async def actors(self, limit: int, offset: int, *, behind: Row | None = None) -> Sequence[Row]:
        """All actors, in the order of their registration: a piece of the list, behind a row."""
        if self._listed is None:
            moment = await self._folded(self._definitions("*"))
            found = [actor for actor in moment.actors.values() if actor.exists]
            found.sort(key=_registration)
            self._listed = moment, found
        moment, found = self._listed
        if behind is not None:
            place = behind["registered_at"], behind["actor_id"]
            offset = bisect_right(found, place, key=_registration)
        rest = found[offset : offset + limit]
        return [{**self._actor(moment, a.actor_id), "found": len(rest)} for a in rest[:PIECE]]

    async def subscriptions(self, actor_id: str) -> Sequence[Row]:
        """An actor's subscriptions."""
        moment = await self._folded(self._definitions(actor_id))
        self._actor(moment, actor_id)
        actor = moment.actors[self._tenant, actor_id]
        return folded_rows.subscription_rows(actor, moment.subscribed.get(actor_id, {}))

    async def waiting(self, actor_id: str) -> int:
        """How many messages wait."""
        moment = await self._history(actor_id)
        return sum(execution.status in WAITING for execution in moment.executions.values())

    async def executions(self, actor_id: str, limit: int, offset: int) -> Row:
        """An actor's totals, with the ``ids`` of a page of its executions."""
        moment = await self._history(actor_id)
        ordinals = sorted(key[2] for key in moment.executions if key[2] >= offset)[:limit]
        found = [moment.executions[self._tenant, actor_id, ordinal] for ordinal in ordinals]
        ids = [execution.execution_id for execution in found]
        return {**self._actor(moment, actor_id), "ids": ids}

    async def execution(self, actor_id: str, ordinal: int) -> Row:
        """One execution, of a deleted actor, too."""
        moment = await self._history(actor_id, deleted=True)
        execution = moment.executions.get((self._tenant, actor_id, ordinal))
        if execution is None:
            what = f"{actor_id} had no execution '{actor_id}_exc_{ordinal}'"
            raise Unknown(f"execution_id: {what} at event {self.sequence}")
        return folded_rows.execution_row(execution)

    async def workers(self, actor_id: str) -> Sequence[Row]:
        """An actor's workers that took a seat then."""
        moment = await self._history(actor_id)
        live = [worker for worker in moment.workers.values() if worker.live]
        live.sort(key=lambda worker: (worker.requested_at, worker.worker_id))
        return [folded_rows.worker_row(worker) for worker in live]

    async def worker(self, actor_id: str, worker_id: str) -> Row:
        """A worker, gone or not."""
        moment = await self._history(actor_id)
        worker = moment.workers.get((self._tenant, worker_id))
        if worker is None:
            what = f"{actor_id} had no worker {worker_id!r} at event {self.sequence}"
            raise Unknown(f"worker_id: {what}")
        return folded_rows.worker_row(worker)

    async def history(self, filters: Sequence[str]) -> AsyncGenerator[Recorded, None]:
        """The events up to the moment."""
        async with aclosing(self._log.read(filters)) as batches:
            async for batch in batches:
                for recorded in batch:
                    if recorded.sequence > self.sequence:
                        return
                    yield recorded
                await asyncio.sleep(0)

    def _definitions(self, actor_id: str) -> list[str]:
        reports = [type_filter(self._tenant, actor_id, kind) for kind in SPEAK_OF_AN_ACTOR]
        return [actor_filter(self._tenant, actor_id), *reports]

    async def _history(self, actor_id: str, *, deleted: bool = False) -> Moment:
        """All there is of an actor, which existed then; or, if ``deleted`` may be, before then."""
        moment = await self._folded([history_filter(self._tenant, actor_id)])
        self._actor(moment, actor_id, deleted=deleted)
        return moment

    async def _folded(self, filters: Sequence[str]) -> Moment:
        moment = Moment()
        async with self._slots.slot():
            try:
                async with asyncio.timeout(self._seconds), aclosing(self.history(filters)) as read:
                    async for recorded in read:
                        moment.apply(recorded)
            except TimeoutError:
                what = f"the history up to event {self.sequence} was not read"
                raise Unavailable(f"as_of: {what} within {self._seconds} s") from None
        return moment

    def _actor(self, moment: Moment, actor_id: str, *, deleted: bool = False) -> dict[str, object]:
        key = self._tenant, actor_id
        actor = moment.actors.get(key, INITIAL)
        if actor.status is ActorStatus.UNREGISTERED:
            what = f"{actor_id!r} was not registered yet at event {self.sequence}"
            raise Unknown(f"actor_id: {what}, or never was")
        if actor.status is ActorStatus.DELETED and not deleted:
            raise Unknown(f"actor_id: {actor_id!r} was deleted already at event {self.sequence}")
        totals = moment.totals.get(key, Totals())
        return folded_rows.actor_row(actor, totals, moment.subscribed.get(actor_id, {}))


def _registration(actor: Actor) -> tuple[datetime, str]:
    """The place of an actor in the list of all."""
    return actor.registered_at, actor.actor_id
