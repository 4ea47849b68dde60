"""The states of one moment of the past, and the answers in them. Pure.

A moment is a fold of events up to a sequence. It answers rightly about what all its events are
there for: see :mod:`abaco_api.as_of.event_selection`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime

from abaco_api.as_of import folded_rows
from abaco_api.domain.views import Row
from abaco_proto import events as ev
from abaco_proto.actor import INITIAL, Actor, ActorStatus
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unknown
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.fold import Fold, Totals

WAITING = (ExecutionStatus.SUBMITTED, ExecutionStatus.ASSIGNED)

PIECE_ACTORS = 16
"""So many actors of a list are made rows at once: a state may be long."""


class Moment(Fold):
    """The states of a tenant at a sequence.

    Every answer raises ``Unknown`` when what is named was not there then.
    """

    def __init__(self, tenant: str, sequence: int) -> None:
        """Nothing has happened yet."""
        super().__init__()
        self.sequence = sequence
        self._tenant = tenant
        self._subscribed: dict[str, dict[str, datetime]] = {}

    def apply(self, recorded: Recorded) -> None:
        """Take in one more event."""
        super().apply(recorded)
        event = recorded.event
        if isinstance(event, ev.ActorSubscribed):
            self._subscribed.setdefault(event.actor_id, {})[event.subscription_id] = recorded.time

    def actor(
        self, actor_id: str, totals: Totals | None = None, *, deleted: bool = False
    ) -> dict[str, object]:
        """A row of ``actors``, with its own totals or with these; a deleted one where it may be."""
        key = self._tenant, actor_id
        actor = self.actors.get(key, INITIAL)
        if actor.status is ActorStatus.UNREGISTERED:
            what = f"{actor_id!r} was not registered yet at event {self.sequence}"
            raise Unknown(f"actor_id: {what}, or never was")
        if actor.status is ActorStatus.DELETED and not deleted:
            raise Unknown(f"actor_id: {actor_id!r} was deleted already at event {self.sequence}")
        totals = totals or self.totals.get(key, Totals())
        return folded_rows.actor_row(actor, totals, self._subscribed.get(actor_id, {}))

    def subscriptions(self, actor_id: str) -> Sequence[Row]:
        """Rows of ``subscriptions`` of an actor."""
        self.actor(actor_id)
        actor = self.actors[self._tenant, actor_id]
        return folded_rows.subscription_rows(actor, self._subscribed.get(actor_id, {}))

    def page(
        self, limit: int, offset: int, after_row: Row | None, only: Sequence[str] | None = None
    ) -> list[str]:
        """The ids of actors in the order of their registration: a page, after a row or offset.

        With ``only``, of those among these ids.
        """
        found = self._registered()
        if only is not None:
            wanted = set(only)
            found = [actor for actor in found if actor.actor_id in wanted]
        if after_row is not None:
            place = after_row["registered_at"], after_row["actor_id"]
            offset = bisect_right(found, place, key=_registration)
        return [actor.actor_id for actor in found[offset : offset + limit]]

    def waiting(self, actor_id: str) -> int:
        """How many messages waited."""
        self.actor(actor_id)
        return sum(execution.status in WAITING for execution in self.executions.values())

    def execution_ids(self, actor_id: str, limit: int, offset: int) -> list[str]:
        """A page of the ids of an actor's executions."""
        ordinals = sorted(key[2] for key in self.executions if key[2] >= offset)[:limit]
        found = [self.executions[self._tenant, actor_id, ordinal] for ordinal in ordinals]
        return [execution.execution_id for execution in found]

    def execution(self, actor_id: str, ordinal: int) -> Execution | None:
        """An execution, if there was one."""
        return self.executions.get((self._tenant, actor_id, ordinal))

    def execution_row(self, actor_id: str, ordinal: int) -> Row:
        """A row of ``executions``; of a deleted actor, too."""
        self.actor(actor_id, deleted=True)
        execution = self.execution(actor_id, ordinal)
        if execution is None:
            what = f"{actor_id} had no execution '{actor_id}_exc_{ordinal}'"
            raise Unknown(f"execution_id: {what} at event {self.sequence}")
        return folded_rows.execution_row(execution)

    def live_workers(self, actor_id: str) -> Sequence[Row]:
        """Rows of ``workers``: those of an actor that were live."""
        self.actor(actor_id)
        live = [worker for worker in self.workers.values() if worker.live]
        live.sort(key=lambda worker: (worker.requested_at, worker.worker_id))
        return [folded_rows.worker_row(worker) for worker in live]

    def worker(self, actor_id: str, worker_id: str) -> Row:
        """A row of ``workers``, live or not."""
        self.actor(actor_id)
        worker = self.workers.get((self._tenant, worker_id))
        if worker is None:
            what = f"{actor_id} had no worker {worker_id!r} at event {self.sequence}"
            raise Unknown(f"worker_id: {what}")
        return folded_rows.worker_row(worker)

    def _registered(self) -> list[Actor]:
        return sorted((a for a in self.actors.values() if a.exists), key=_registration)


def _registration(actor: Actor) -> tuple[datetime, str]:
    return actor.registered_at, actor.actor_id
