"""The fold of a batch of events: the states that were, in; the states that are, out.

Theory: what an event does to an aggregate is said once, by the ``evolve`` functions of proto.
This module only finds the aggregates an event is about. Most events name theirs; then the states
are loaded before the fold and written after it. A purge or a deletion is about everything that
waits, which may be a million rows: what the batch has loaded is folded here, and the rest is a
:class:`Sweep`, one statement for the database. The two never meet, because a sweep leaves out
what the batch has loaded, and a row outside the batch has no other event in it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from abaco_projector.keys import (
    ActorKey,
    ExecutionKey,
    SubscriptionKey,
    WorkerKey,
    actor_id_of,
    ordinal_of,
    worker_id_of,
)
from abaco_proto import actor, execution, worker
from abaco_proto import events as ev
from abaco_proto.actor import Actor, ActorStatus
from abaco_proto.envelope import Recorded
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.worker import Worker

MAX_ORDINAL = 2**63 - 1

Key = TypeVar("Key")
State = TypeVar("State")


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over all executions of one actor, those that ended being counted in the last four."""

    total_executions: int = 0
    total_ended: int = 0
    total_cpu_ns: int = 0
    total_io_bytes: int = 0
    total_runtime_ms: float = 0.0


class States(msgspec.Struct, frozen=True, kw_only=True):
    """Aggregates by key. An actor that has a state has totals, too."""

    actors: dict[ActorKey, Actor] = msgspec.field(default_factory=dict)
    totals: dict[ActorKey, Totals] = msgspec.field(default_factory=dict)
    executions: dict[ExecutionKey, Execution] = msgspec.field(default_factory=dict)
    workers: dict[WorkerKey, Worker] = msgspec.field(default_factory=dict)


class Subscription(msgspec.Struct, frozen=True):
    """One row of the table ``subscriptions``."""

    event_pattern: str
    subscribed_at: datetime


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """The end of all executions that wait, up to an ordinal, but for those in ``spared``."""

    key: ActorKey
    up_to_ordinal: int
    spared: list[int]
    status: ExecutionStatus
    status_message: str
    finished_at: datetime


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch changed: states to write, subscriptions to write (or remove: None), sweeps."""

    states: States
    subscriptions: dict[SubscriptionKey, Subscription | None]
    sweeps: list[Sweep]
    unrecognized: list[Recorded]


# -- fold ----------------------------------------------------------------------------------------


def fold(loaded: States, batch: Sequence[Recorded]) -> Changes:
    """What ``batch`` makes of ``loaded``, which must hold all there is of ``keys_of(batch)``."""
    folding = _Fold(loaded)
    for recorded in batch:
        folding.apply(recorded)
    return folding.changes()


class _Fold:
    """The states while a batch is folded."""

    def __init__(self, loaded: States) -> None:
        self._loaded = loaded
        self._actors = dict(loaded.actors)
        self._totals = dict(loaded.totals)
        self._executions = dict(loaded.executions)
        self._workers = dict(loaded.workers)
        self._subscriptions: dict[SubscriptionKey, Subscription | None] = {}
        self._sweeping: list[tuple[ActorKey, Recorded]] = []
        self._unrecognized: list[Recorded] = []

    def apply(self, recorded: Recorded) -> None:
        event = recorded.event
        actor_id = actor_id_of(event)
        if isinstance(event, ev.Unrecognized):
            self._unrecognized.append(recorded)
        elif actor_id is not None:
            key = (recorded.tenant, actor_id)
            self._actor(key, recorded)
            for execution_key in self._concerned(key, recorded):
                self._execution(execution_key, recorded)
            self._worker(key, recorded)

    def changes(self) -> Changes:
        before = self._loaded
        states = States(
            actors=_changed(before.actors, self._actors),
            totals=_changed(before.totals, self._totals),
            executions=_changed(before.executions, self._executions),
            workers=_changed(before.workers, self._workers),
        )
        return Changes(
            states=states,
            subscriptions=self._subscriptions,
            sweeps=[self._sweep(key, recorded) for key, recorded in self._sweeping],
            unrecognized=self._unrecognized,
        )

    def _actor(self, key: ActorKey, recorded: Recorded) -> None:
        before = self._actors.get(key, actor.INITIAL)
        after = actor.evolve(before, recorded)
        if after is before:
            return
        self._actors[key] = after
        self._totals.setdefault(key, Totals())
        match recorded.event:
            case ev.ActorSubscribed() as event:
                added = Subscription(event.event_pattern, recorded.time)
                self._subscriptions[*key, event.subscription_id] = added
            case ev.ActorUnsubscribed() as event:
                self._subscriptions[*key, event.subscription_id] = None

    def _concerned(self, key: ActorKey, recorded: Recorded) -> list[ExecutionKey]:
        if isinstance(recorded.event, ev.InboxPurged | ev.ActorDeleted):
            self._sweeping.append((key, recorded))
            return [found for found in self._executions if found[:2] == key]
        ordinal = ordinal_of(recorded.event, key[1])
        return [] if ordinal is None else [(*key, ordinal)]

    def _execution(self, key: ExecutionKey, recorded: Recorded) -> None:
        before = self._executions.get(key, execution.INITIAL)
        after = execution.evolve(before, recorded)
        if after is before:
            return
        owner = self._actors.get(key[:2], actor.INITIAL)
        if owner.status is ActorStatus.DELETED:  # it came too late: the deletion is for it, too
            deletion = ev.ActorDeleted(actor_id=owner.actor_id)
            after = execution.evolve(after, replace(recorded, event=deletion))
        self._executions[key] = after
        if key[:2] in self._totals:
            self._totals[key[:2]] = _counted(self._totals[key[:2]], before, after)

    def _worker(self, key: ActorKey, recorded: Recorded) -> None:
        for worker_key in self._seats(key, recorded.event):
            before = self._workers.get(worker_key, worker.INITIAL)
            after = worker.evolve(before, recorded)
            if after is not before:
                self._workers[worker_key] = after

    def _seats(self, key: ActorKey, event: ev.Event) -> list[WorkerKey]:
        """The workers an event is about; an abandonment names only what its worker runs."""
        tenant, actor_id = key
        worker_id = worker_id_of(event)
        if worker_id is not None:
            return [(tenant, worker_id)]
        if not isinstance(event, ev.ExecutionAbandoned):
            return []
        runs = (event.execution_id, actor_id)
        seats = self._workers.items()
        return [k for k, w in seats if k[0] == tenant and (w.execution_id, w.actor_id) == runs]

    def _sweep(self, key: ActorKey, recorded: Recorded) -> Sweep:
        """The sweep for an event: what it makes of an execution that waits, it makes of all."""
        last = getattr(recorded.event, "up_to_ordinal", MAX_ORDINAL)
        waiting = Execution(actor_id=key[1], ordinal=last, status=ExecutionStatus.SUBMITTED)
        ended = execution.evolve(waiting, recorded)
        return Sweep(
            key=key,
            up_to_ordinal=min(last, MAX_ORDINAL),
            spared=[ordinal for *owner, ordinal in self._executions if tuple(owner) == key],
            status=ended.status,
            status_message=ended.status_message,
            finished_at=recorded.time,
        )


def _changed(before: dict[Key, State], after: dict[Key, State]) -> dict[Key, State]:
    """The entries that are other objects than before: ``evolve`` returns what it leaves alone."""
    return {key: state for key, state in after.items() if before.get(key) is not state}


def _counted(totals: Totals, before: Execution, after: Execution) -> Totals:
    if before is execution.INITIAL:
        totals = replace(totals, total_executions=totals.total_executions + 1)
    if before.ended or not after.ended:
        return totals
    return replace(
        totals,
        total_ended=totals.total_ended + 1,
        total_cpu_ns=totals.total_cpu_ns + after.cpu_ns,
        total_io_bytes=totals.total_io_bytes + after.io_bytes,
        total_runtime_ms=totals.total_runtime_ms + after.runtime_ms,
    )
