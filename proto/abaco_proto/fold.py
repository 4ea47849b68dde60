"""The fold of everything: all aggregates, and the totals of each actor, event by event.

The ``evolve`` functions define what an event does to an aggregate; this module finds the aggregates
of an event. Most events name them; a purge or a deletion is about every waiting execution. The live
read models, rebuilt ones, and the state at a sequence in the past are all computed by this fold,
over a batch, the whole log, or a part of it.
"""

from typing import TypeVar

import msgspec
from msgspec.structs import replace

from abaco_proto import actor, execution, worker
from abaco_proto import events as ev
from abaco_proto.actor import Actor, ActorStatus
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.state_keys import (
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
BULK_EVENTS = frozenset({ev.InboxPurged, ev.ActorDeleted})
"""Events about every waiting execution of an actor."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the executions of one actor; all but ``total_executions`` count ended ones only.

    ``total_ended`` is the sum of the four that follow it.
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
    """Aggregates by key. Each actor in ``actors`` has an entry in ``totals``."""

    actors: dict[ActorKey, Actor] = msgspec.field(default_factory=dict)
    totals: dict[ActorKey, Totals] = msgspec.field(default_factory=dict)
    executions: dict[ExecutionKey, Execution] = msgspec.field(default_factory=dict)
    workers: dict[WorkerKey, Worker] = msgspec.field(default_factory=dict)


class Fold:
    """Applies events to states.

    The loaded states must include all that the events name (``state_keys``). ``bulk_updates`` are
    the events that end waiting executions; the caller applies them to executions that are not
    loaded.
    """

    def __init__(self, loaded: States | None = None) -> None:
        """Begin with ``loaded``, which is not changed; without it, with no states."""
        self._loaded = loaded or States()
        self.actors = dict(self._loaded.actors)
        self.totals = dict(self._loaded.totals)
        self.executions = dict(self._loaded.executions)
        self.workers = dict(self._loaded.workers)
        self.bulk_updates: list[tuple[ActorKey, Recorded]] = []

    def apply(self, recorded: Recorded) -> None:
        """Apply one more event. Never raises; an event that does not apply is ignored."""
        event, tenant = recorded.event, recorded.tenant
        kind = type(event)
        actor_id = actor_id_of(event)
        if actor_id is None:
            return
        key = (tenant, actor_id)
        if kind in actor.RELEVANT_TYPES:
            self._actor(key, recorded)
        if kind in BULK_EVENTS:
            self._bulk_update(key, recorded)
        elif (ordinal := ordinal_of(event, actor_id)) is not None:
            self._execution(key, (tenant, actor_id, ordinal), recorded)
        if (worker_id := worker_id_of(event)) is not None:
            self._worker((tenant, worker_id), recorded)
        elif kind is ev.ExecutionAbandoned:
            self._workers_running(key, recorded)

    def changed(self) -> States:
        """The states that were changed."""
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

    def _bulk_update(self, key: ActorKey, recorded: Recorded) -> None:
        self.bulk_updates.append((key, recorded))
        for found in [found for found in self.executions if found[:2] == key]:
            self._execution(key, found, recorded)

    def _execution(self, owner_key: ActorKey, key: ExecutionKey, recorded: Recorded) -> None:
        before = self.executions.get(key, execution.INITIAL)
        after = execution.evolve(before, recorded)
        if after is before:
            return
        owner = self.actors.get(owner_key, actor.INITIAL)
        if (
            owner.status is DELETED
        ):  # the message was accepted after the deletion, which ends it too
            deletion = ev.ActorDeleted(actor_id=owner.actor_id)
            after = execution.evolve(after, replace(recorded, event=deletion))
        self.executions[key] = after
        totals = self.totals.get(owner_key)
        if totals is not None:
            self.totals[owner_key] = counted(totals, before, after)

    def _worker(self, key: WorkerKey, recorded: Recorded) -> None:
        before = self.workers.get(key, worker.INITIAL)
        after = worker.evolve(before, recorded)
        if after is not before:
            self.workers[key] = after

    def _workers_running(self, key: ActorKey, recorded: Recorded) -> None:
        """Apply an abandonment, which names no worker, to the workers that run the execution."""
        tenant, actor_id = key
        runs = (getattr(recorded.event, "execution_id", None), actor_id)
        workers = self.workers.items()
        for found in [
            k for k, w in workers if k[0] == tenant and (w.execution_id, w.actor_id) == runs
        ]:
            self._worker(found, recorded)


def _changed(before: dict[Key, State], after: dict[Key, State]) -> dict[Key, State]:
    """The entries that are different objects: ``evolve`` returns an unchanged state itself."""
    return {key: state for key, state in after.items() if before.get(key) is not state}


def counted(totals: Totals, before: Execution, after: Execution) -> Totals:
    """The totals of an actor after one of its executions has changed."""
    if before.status is ExecutionStatus.UNKNOWN:
        totals = replace(totals, total_executions=totals.total_executions + 1)
    if before.status in execution.ENDED:
        totals = _added(totals, before, -1)
    return _added(totals, after, 1) if after.status in execution.ENDED else totals


def _added(totals: Totals, ended: Execution, sign: int) -> Totals:
    """Add an ended execution to the sums, or, when it is retried, subtract it."""
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
