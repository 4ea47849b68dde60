"""The observed cluster: a fold of the log that holds what a decision needs, and no more.

Theory: of an actor's messages the scheduler keeps the sequences of those that wait, in order,
and entries for those that run; what ended is forgotten. Ordinals have no gaps, so the ordinal of
the first that waits and the length of the queue say the rest. Of workers it keeps the live ones.
The aggregates' own rules are those of ``abaco_proto``; only the bookkeeping around them is here.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime

from abaco_proto import actor, worker
from abaco_proto import events as ev
from abaco_proto.actor import Actor, ActorStatus
from abaco_proto.envelope import EPOCH, Recorded
from abaco_proto.ids import execution_ordinal, worker_number
from abaco_proto.log import Heartbeat
from abaco_proto.worker import Worker


@dataclass(slots=True)
class Task:
    """A message on its way: assigned to a worker, or waiting to be tried again.

    ``attempt`` is the latest, from 1; ``reason`` says why that one came to nothing.
    """

    ordinal: int
    message_sequence: int
    attempt: int = 0
    worker_id: str = ""
    reason: str = ""


@dataclass(slots=True)
class Desk:
    """All that concerns one actor."""

    tenant: str
    actor: Actor
    waiting: deque[int] = field(default_factory=deque)
    next_ordinal: int = 0
    halted: set[int] = field(default_factory=set)
    running: dict[int, Task] = field(default_factory=dict)
    retries: dict[int, Task] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    worker_count: int = 0
    assigned_sequence: int = 0
    failures: int = 0
    failed_at: datetime = EPOCH

    @property
    def backlog(self) -> int:
        """How many messages no worker has yet."""
        return len(self.waiting) - len(self.halted) + len(self.retries)


@dataclass(slots=True)
class Host:
    """A host. ``sequence`` is that of its last event; ``heard_at`` is of the monotonic clock."""

    host_id: str
    tenant: str
    capacity: int = 0
    joined: bool = False
    sequence: int = 0
    offered: int = 0
    heard_at: float = 0.0


@dataclass(slots=True)
class Cluster:
    """Everything the scheduler knows.

    ``load`` counts the live workers of a host, ``requested_sequence`` is that of the last request
    for a worker, ``unsettled`` are the actors that may need a decision.
    """

    desks: dict[tuple[str, str], Desk] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    load: Counter[str] = field(default_factory=Counter)
    unsettled: set[tuple[str, str]] = field(default_factory=set)
    requested_sequence: int = 0
    sequence: int = 0

    def heard(self, heartbeat: Heartbeat, tenant: str, at: float) -> None:
        """Take note of a sign of life, at a time of the monotonic clock."""
        host = self.hosts.setdefault(heartbeat.host_id, Host(heartbeat.host_id, tenant))
        host.offered = heartbeat.capacity
        host.heard_at = at


def observe(cluster: Cluster, recorded: Recorded) -> None:
    """Take note of one more event. Total: what does not fit changes nothing."""
    cluster.sequence = recorded.sequence
    event = recorded.event
    match event:
        case ev.HostJoined() | ev.HostLost():
            _observe_host(cluster, event, recorded)
        case ev.ActorRegistered():
            _observe_registration(cluster, event, recorded)
        case ev.Unrecognized():
            pass
        case _:
            key = (recorded.tenant, getattr(event, "actor_id", ""))
            if isinstance(event, ev.WorkerRequested):
                # A scheduler that lags may ask for a worker of an actor that is gone.
                cluster.requested_sequence = recorded.sequence
                cluster.desks.setdefault(key, Desk(recorded.tenant, _gone(event.actor_id)))
            desk = cluster.desks.get(key)
            if desk is not None:
                _observe_desk(cluster, desk, recorded)
                cluster.unsettled.add(key)


def _gone(actor_id: str) -> Actor:
    return Actor(actor_id=actor_id, status=ActorStatus.DELETED)


def _observe_host(cluster: Cluster, event: ev.HostJoined | ev.HostLost, recorded: Recorded) -> None:
    host = cluster.hosts.setdefault(event.host_id, Host(event.host_id, recorded.tenant))
    host.sequence = recorded.sequence
    host.joined = isinstance(event, ev.HostJoined)
    if isinstance(event, ev.HostJoined):
        host.capacity = event.capacity
        host.offered = host.offered or event.capacity


def _observe_registration(cluster: Cluster, event: ev.ActorRegistered, recorded: Recorded) -> None:
    key = (recorded.tenant, event.actor_id)
    if key not in cluster.desks:
        cluster.desks[key] = Desk(recorded.tenant, actor.evolve(actor.INITIAL, recorded))
        cluster.unsettled.add(key)


def _observe_desk(cluster: Cluster, desk: Desk, recorded: Recorded) -> None:
    desk.actor = actor.evolve(desk.actor, recorded)
    _observe_workers(cluster, desk, recorded)
    event = recorded.event
    match event:
        case ev.ActorUpdated():
            desk.failures, desk.failed_at = 0, EPOCH
        case ev.ActorDeleted():
            desk.waiting.clear()
            desk.halted.clear()
        case ev.MessageReceived() if desk.actor.exists:
            _observe_message(desk, event, recorded)
        case ev.InboxPurged():
            _drop_waiting(desk, event.up_to_ordinal)
        case ev.ExecutionHaltRequested():
            _observe_halt(desk, event)
        case ev.ExecutionAssigned():
            _observe_assignment(desk, event, recorded)
        case ev.ExecutionFinished() | ev.ExecutionAbandoned():
            _observe_end(desk, event)
    if not desk.actor.exists and not (desk.workers or desk.running or desk.retries):
        cluster.desks.pop((desk.tenant, desk.actor.actor_id), None)


def _observe_message(desk: Desk, event: ev.MessageReceived, recorded: Recorded) -> None:
    if event.ordinal == desk.next_ordinal + len(desk.waiting):
        desk.waiting.append(recorded.sequence)


def _drop_waiting(desk: Desk, up_to_ordinal: int) -> None:
    while desk.waiting and desk.next_ordinal <= up_to_ordinal:
        take_next(desk)


def take_next(desk: Desk) -> int:
    """Take the first message that waits off the queue; its sequence."""
    desk.halted.discard(desk.next_ordinal)
    desk.next_ordinal += 1
    return desk.waiting.popleft()


def _observe_halt(desk: Desk, event: ev.ExecutionHaltRequested) -> None:
    ordinal = execution_ordinal(event.execution_id, event.actor_id)
    end = desk.next_ordinal + len(desk.waiting)
    if ordinal is not None and desk.next_ordinal <= ordinal < end:
        desk.halted.add(ordinal)
        while desk.next_ordinal in desk.halted:
            take_next(desk)


def _observe_assignment(desk: Desk, event: ev.ExecutionAssigned, recorded: Recorded) -> None:
    desk.assigned_sequence = recorded.sequence
    if event.ordinal == desk.next_ordinal and desk.waiting:
        task = Task(event.ordinal, take_next(desk))
        while desk.next_ordinal in desk.halted:
            take_next(desk)
    else:
        found = desk.retries.pop(event.ordinal, None) or desk.running.get(event.ordinal)
        if found is None or event.attempt <= found.attempt:
            return
        task = found
    task.attempt, task.worker_id, task.reason = event.attempt, event.worker_id, ""
    desk.running[event.ordinal] = task
    if event.worker_id not in desk.workers:
        _give_back(desk, event.worker_id, f"worker {event.worker_id} was gone")


def _observe_end(desk: Desk, event: ev.ExecutionFinished | ev.ExecutionAbandoned) -> None:
    ordinal = execution_ordinal(event.execution_id, event.actor_id)
    if ordinal is None:
        return
    task = desk.running.get(ordinal) or desk.retries.get(ordinal)
    if task is None:
        return
    if isinstance(event, ev.ExecutionFinished) and event.attempt != task.attempt:
        return
    desk.running.pop(ordinal, None)
    desk.retries.pop(ordinal, None)


def _observe_workers(cluster: Cluster, desk: Desk, recorded: Recorded) -> None:
    event = recorded.event
    match event:
        case ev.WorkerRequested():
            number = worker_number(event.worker_id, event.actor_id)
            desk.worker_count = max(desk.worker_count, (number or 0) + 1)
            desk.workers[event.worker_id] = worker.evolve(worker.INITIAL, recorded)
            cluster.load[event.host_id] += 1
            return
        case ev.WorkerReady():
            desk.failures, desk.failed_at = 0, EPOCH
        case ev.WorkerFailed() if event.revision == desk.actor.revision:
            desk.failures, desk.failed_at = desk.failures + 1, recorded.time
    for found in _concerned(desk, event):
        _observe_worker(cluster, desk, found, recorded)


def _concerned(desk: Desk, event: ev.Event) -> list[Worker]:
    """The workers an event may change: the one it names, or the one that ran what it names."""
    named = getattr(event, "worker_id", None)
    if named is not None:
        return [desk.workers[named]] if named in desk.workers else []
    if isinstance(event, ev.ExecutionAbandoned):
        return [w for w in desk.workers.values() if w.execution_id == event.execution_id]
    return []


def _observe_worker(cluster: Cluster, desk: Desk, found: Worker, recorded: Recorded) -> None:
    after = worker.evolve(found, recorded)
    if after.live:
        desk.workers[after.worker_id] = after
        return
    del desk.workers[after.worker_id]
    cluster.load[after.host_id] -= 1
    _give_back(desk, after.worker_id, f"worker {after.worker_id}: {after.status_message}")


def _give_back(desk: Desk, worker_id: str, reason: str) -> None:
    """What a worker that is gone was running must be tried again."""
    for ordinal in [o for o, task in desk.running.items() if task.worker_id == worker_id]:
        task = desk.running.pop(ordinal)
        task.reason = reason
        desk.retries[ordinal] = task
