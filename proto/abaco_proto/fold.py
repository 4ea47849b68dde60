"""The fold of everything: all aggregates, and the totals of each actor, event by event.

Theory: what an event does to an aggregate is said once, by the ``evolve`` functions. This module
finds the aggregates an event is about. Most events name theirs; a purge or a deletion is about
everything that waits. Live read models, rebuilt ones and any moment of the past are all this one
fold, over a batch, over the whole log, or over a part of it.
"""

from typing import TypeVar

import msgspec
from msgspec.structs import replace

from abaco_proto import actor, execution, worker
from abaco_proto import events as ev
from abaco_proto.actor import Actor, ActorStatus
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.keys import (
    ActorKey,
    ExecutionKey,
    WorkerKey,
    actor_id_of,
    ordinal_of,
    worker_id_of,
)
from abaco_proto.worker import Worker

Key = TypeVar("Key")
State = TypeVar("State")


DELETED = ActorStatus.DELETED
SWEEPING = frozenset({ev.InboxPurged, ev.ActorDeleted})
"""Events about everything that waits."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over all executions of one actor; those that ended are counted in all but the first.

    ``total_ended`` is the sum of the four that follow it, by what they ended as.
    """

    total_executions: int = 0
    total_ended: int = 0
    total_complete: int = 0
    total_error: int = 0
    total_halted: int = 0
    total_purged: int = 0
    total_cpu_ns: int = 0
    total_io_bytes: int = 0
    total_runtime_ms: float = 0.0


class States(msgspec.Struct, frozen=True, kw_only=True):
    """Aggregates by key. An actor that has a state has totals, too."""

    actors: dict[ActorKey, Actor] = msgspec.field(default_factory=dict)
    totals: dict[ActorKey, Totals] = msgspec.field(default_factory=dict)
    executions: dict[ExecutionKey, Execution] = msgspec.field(default_factory=dict)
    workers: dict[WorkerKey, Worker] = msgspec.field(default_factory=dict)


class Fold:
    """States while events are applied to them.

    What it starts from must hold all there is of what the events name (``keys_of``). ``sweeping``
    are the events that ended whatever waited: those of them that are not in the states must be
    ended by whoever keeps them.
    """

    def __init__(self, loaded: States | None = None) -> None:
        """Begin with ``loaded``, which is left as it is; with nothing at the start of history."""
        self._loaded = loaded or States()
        self.actors = dict(self._loaded.actors)
        self.totals = dict(self._loaded.totals)
        self.executions = dict(self._loaded.executions)
        self.workers = dict(self._loaded.workers)
        self.sweeping: list[tuple[ActorKey, Recorded]] = []

    def apply(self, recorded: Recorded) -> None:
        """Take in one more event. Total: what does not fit changes nothing."""
        event, tenant = recorded.event, recorded.tenant
        kind = type(event)
        actor_id = actor_id_of(event)
        if actor_id is None:
            return
        key = (tenant, actor_id)
        if kind in actor.HEARD:
            self._actor(key, recorded)
        if kind in SWEEPING:
            self._sweep(key, recorded)
        elif (ordinal := ordinal_of(event, actor_id)) is not None:
            self._execution(key, (tenant, actor_id, ordinal), recorded)
        if (worker_id := worker_id_of(event)) is not None:
            self._worker((tenant, worker_id), recorded)
        elif kind is ev.ExecutionAbandoned:
            self._seats(key, recorded)

    def changed(self) -> States:
        """The states that are others than at the beginning."""
        before = self._loaded
        return States(
            actors=_changed(before.actors, self.actors),
            totals=_changed(before.totals, self.totals),
            executions=_changed(before.executions, self.executions),
            workers=_changed(before.workers, self.workers),
        )

    def _actor(self, key: ActorKey, recorded: Recorded) -> None:
        before = self.actors.get(key, actor.INITIAL)
        after = actor.evolve(before, recorded)
        if after is not before:
            self.actors[key] = after
            self.totals.setdefault(key, Totals())

    def _sweep(self, key: ActorKey, recorded: Recorded) -> None:
        self.sweeping.append((key, recorded))
        for found in [found for found in self.executions if found[:2] == key]:
            self._execution(key, found, recorded)

    def _execution(self, owner_key: ActorKey, key: ExecutionKey, recorded: Recorded) -> None:
        before = self.executions.get(key, execution.INITIAL)
        after = execution.evolve(before, recorded)
        if after is before:
            return
        owner = self.actors.get(owner_key, actor.INITIAL)
        if owner.status is DELETED:  # it came too late: the deletion is for it, too
            deletion = ev.ActorDeleted(actor_id=owner.actor_id)
            after = execution.evolve(after, replace(recorded, event=deletion))
        self.executions[key] = after
        totals = self.totals.get(owner_key)
        if totals is not None:
            self.totals[owner_key] = _counted(totals, before, after)

    def _worker(self, key: WorkerKey, recorded: Recorded) -> None:
        before = self.workers.get(key, worker.INITIAL)
        after = worker.evolve(before, recorded)
        if after is not before:
            self.workers[key] = after

    def _seats(self, key: ActorKey, recorded: Recorded) -> None:
        """An abandonment is about the workers that run it: it names no other."""
        tenant, actor_id = key
        runs = (getattr(recorded.event, "execution_id", None), actor_id)
        seats = self.workers.items()
        for found in [
            k for k, w in seats if k[0] == tenant and (w.execution_id, w.actor_id) == runs
        ]:
            self._worker(found, recorded)


def _changed(before: dict[Key, State], after: dict[Key, State]) -> dict[Key, State]:
    """The entries that are other objects than before: ``evolve`` returns what it leaves alone."""
    return {key: state for key, state in after.items() if before.get(key) is not state}


def _counted(totals: Totals, before: Execution, after: Execution) -> Totals:
    if before is execution.INITIAL:
        totals = replace(totals, total_executions=totals.total_executions + 1)
    if before.status in execution.ENDED:
        totals = _added(totals, before, -1)
    return _added(totals, after, 1) if after.status in execution.ENDED else totals


def _added(totals: Totals, ended: Execution, sign: int) -> Totals:
    """An execution that ended put into the sums, or taken out: a retry begins it anew."""
    count = _COUNTS[ended.status]
    by = {count: getattr(totals, count) + sign}
    return replace(
        totals,
        total_ended=totals.total_ended + sign,
        total_cpu_ns=totals.total_cpu_ns + sign * ended.cpu_ns,
        total_io_bytes=totals.total_io_bytes + sign * ended.io_bytes,
        total_runtime_ms=totals.total_runtime_ms + sign * ended.runtime_ms,
        **by,
    )


_COUNTS = {
    ExecutionStatus.COMPLETE: "total_complete",
    ExecutionStatus.ERROR: "total_error",
    ExecutionStatus.HALTED: "total_halted",
    ExecutionStatus.PURGED: "total_purged",
}
