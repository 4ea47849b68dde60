"""The observed cluster: a fold of the log that holds what a decision needs, and no more.

Theory: of an actor's messages the scheduler keeps what :mod:`abaco_scheduler.inbox` says; of
workers it keeps the live ones. The aggregates' own rules are those of ``abaco_proto``; only the
bookkeeping around them is here.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from abaco_proto import actor, worker
from abaco_proto import events as ev
from abaco_proto.actor import Actor, ActorStatus
from abaco_proto.envelope import EPOCH, Recorded
from abaco_proto.ids import worker_number
from abaco_proto.log import Heartbeat
from abaco_proto.subjects import HOST_ACTOR_PREFIX
from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler import inbox
from abaco_scheduler.inbox import Inbox

MOST_AWAY = 10_000
"""Hosts that are lost and have no worker; where names are random, every restart leaves one."""

Key = tuple[str, str]
"""Tenant and actor id."""


@dataclass(slots=True)
class Desk:
    """All that concerns one actor.

    ``late`` are the workers that were given what had ended already, with the attempt. ``turns``
    says since when each worker has had work, ``served_at`` when the actor last got some done.
    ``not_replaced`` counts the workers below ``min_workers`` that a person stopped.
    """

    tenant: str
    actor: Actor
    inbox: Inbox = field(default_factory=Inbox)
    workers: dict[str, Worker] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    turns: dict[str, datetime] = field(default_factory=dict)
    served_at: datetime = EPOCH
    worker_count: int = 0
    not_replaced: int = 0
    assigned_sequence: int = 0
    state_sequence: int = 0
    failures: int = 0
    failed_at: datetime = EPOCH

    @property
    def key(self) -> Key:
        """By what it is found."""
        return self.tenant, self.actor.actor_id


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
    for a worker, ``unsettled`` are the actors that may need a decision, ``seated`` those that
    have workers: never more than there are seats, however many actors there are.
    """

    desks: dict[Key, Desk] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    load: Counter[str] = field(default_factory=Counter)
    unsettled: set[Key] = field(default_factory=set)
    seated: set[Key] = field(default_factory=set)
    requested_sequence: int = 0
    sequence: int = 0

    def heard(self, heartbeat: Heartbeat, tenant: str, at: float) -> None:
        """Take note of a sign of life, at a time of the monotonic clock."""
        host = self.hosts.setdefault(heartbeat.host_id, Host(heartbeat.host_id, tenant))
        host.offered = heartbeat.capacity
        host.heard_at = at

    def seated_desks(self) -> list[Desk]:
        """The desks of the actors that have workers, in a fixed order."""
        return [self.desks[key] for key in sorted(self.seated)]


def observe(cluster: Cluster, recorded: Recorded) -> None:
    """Take note of one more event. Total: what does not fit, or comes again, changes nothing."""
    if recorded.sequence <= cluster.sequence:
        return
    cluster.sequence = recorded.sequence
    event = recorded.event
    match event:
        case ev.HostJoined() | ev.HostLost():
            _observe_host(cluster, event, recorded)
        case ev.ActorRegistered():
            _observe_registration(cluster, event, recorded)
        case ev.Unrecognized():
            _observe_damage(cluster, recorded)
        case _:
            key = (recorded.tenant, getattr(event, "actor_id", ""))
            if isinstance(event, ev.WorkerRequested):
                # A scheduler that lags may ask for a worker of an actor that is gone.
                cluster.requested_sequence = recorded.sequence
                cluster.desks.setdefault(key, Desk(recorded.tenant, _gone(event.actor_id)))
            desk = cluster.desks.get(key)
            if desk is not None:
                _observe_desk(cluster, desk, recorded)


def _observe_damage(cluster: Cluster, recorded: Recorded) -> None:
    """What nobody can read says nothing, but conditions count it: it stands where it stands."""
    match recorded.subject.split("."):
        case [_, _, tenant, actor_id, "execution", "assigned", _]:
            desk = cluster.desks.get((tenant, actor_id))
            if desk is not None:
                desk.assigned_sequence = recorded.sequence
        case [_, _, _, _, "worker", "requested", _]:
            cluster.requested_sequence = recorded.sequence
        case [_, _, _, actor_id, "host", _] if actor_id.startswith(HOST_ACTOR_PREFIX):
            host = cluster.hosts.get(actor_id.removeprefix(HOST_ACTOR_PREFIX))
            if host is not None:
                host.sequence = recorded.sequence


def _gone(actor_id: str) -> Actor:
    return Actor(actor_id=actor_id, status=ActorStatus.DELETED)


def _observe_host(cluster: Cluster, event: ev.HostJoined | ev.HostLost, recorded: Recorded) -> None:
    host = cluster.hosts.setdefault(event.host_id, Host(event.host_id, recorded.tenant))
    host.sequence = recorded.sequence
    host.joined = isinstance(event, ev.HostJoined)
    if isinstance(event, ev.HostJoined):
        host.capacity = event.capacity
        host.offered = host.offered or event.capacity
    else:
        _forget_hosts(cluster)


def _forget_hosts(cluster: Cluster) -> None:
    """Keep of the hosts that are away those that were lost last. One that was not may come back."""
    away = [
        host
        for host in cluster.hosts.values()
        if host.sequence and not host.joined and not cluster.load[host.host_id]
    ]
    away.sort(key=lambda host: host.sequence)
    for host in away[: max(0, len(away) - MOST_AWAY)]:
        del cluster.hosts[host.host_id]


def _observe_registration(cluster: Cluster, event: ev.ActorRegistered, recorded: Recorded) -> None:
    key = (recorded.tenant, event.actor_id)
    if key not in cluster.desks:
        cluster.desks[key] = Desk(recorded.tenant, _needed(actor.evolve(actor.INITIAL, recorded)))
        cluster.unsettled.add(key)


def _needed(found: Actor) -> Actor:
    """An actor without what no decision depends on, which may be large."""
    definition = replace(found.definition, description=None, default_environment={})
    return replace(found, state="", subscriptions={}, definition=definition)


def _observe_desk(cluster: Cluster, desk: Desk, recorded: Recorded) -> None:
    desk.actor = actor.evolve(desk.actor, recorded)
    _observe_workers(cluster, desk, recorded)
    match recorded.event:
        case ev.ActorUpdated():
            desk.failures, desk.failed_at, desk.not_replaced = 0, EPOCH, 0
            desk.actor = _needed(desk.actor)
        case ev.ActorStateSet():
            desk.state_sequence = recorded.sequence
            desk.actor = _needed(desk.actor)
        case ev.ActorSubscribed():
            desk.actor = _needed(desk.actor)
        case ev.ExecutionAssigned() as event:
            _observe_assignment(desk, event, recorded)
        case _:
            inbox.observe(desk.inbox, recorded, exists=desk.actor.exists)
    cluster.unsettled.add(desk.key)
    (cluster.seated.add if desk.workers else cluster.seated.discard)(desk.key)
    if not (desk.actor.exists or desk.workers or desk.inbox.running or desk.inbox.retries):
        del cluster.desks[desk.key]


def _observe_assignment(desk: Desk, event: ev.ExecutionAssigned, recorded: Recorded) -> None:
    desk.assigned_sequence = recorded.sequence
    desk.served_at = recorded.time
    found = desk.workers.get(event.worker_id)
    if not inbox.assigned(desk.inbox, event):
        if found is not None and found.execution_id == event.execution_id:
            desk.late[event.worker_id] = event.attempt
    elif found is not None:
        desk.turns.setdefault(event.worker_id, recorded.time)
    else:
        inbox.lost(desk.inbox, event.worker_id, f"worker {event.worker_id} was gone", recorded.id)


def _observe_workers(cluster: Cluster, desk: Desk, recorded: Recorded) -> None:
    event = recorded.event
    match event:
        case ev.WorkerRequested():
            number = worker_number(event.worker_id, event.actor_id)
            desk.worker_count = max(desk.worker_count, (number or 0) + 1)
            desk.workers[event.worker_id] = worker.evolve(worker.INITIAL, recorded)
            cluster.load[event.host_id] += 1
            if not event.warm and desk.not_replaced:  # messages need it
                desk.not_replaced -= 1
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
    if after.execution_id is None:
        desk.late.pop(after.worker_id, None)
    if after.live:
        desk.workers[after.worker_id] = after
        if after.status is not found.status and _stopped_by_a_person(recorded.event):
            _observe_stop_by_a_person(desk)
        return
    del desk.workers[after.worker_id]
    desk.turns.pop(after.worker_id, None)
    desk.late.pop(after.worker_id, None)
    cluster.load[after.host_id] -= 1
    reason = f"worker {after.worker_id}: {after.status_message}"
    inbox.lost(desk.inbox, after.worker_id, reason, recorded.id)


def _stopped_by_a_person(event: ev.Event) -> bool:
    return isinstance(event, ev.WorkerStopRequested) and event.reason == ev.BY_A_PERSON


def _observe_stop_by_a_person(desk: Desk) -> None:
    """Do not replace the worker, if it is one of those that the actor keeps without messages."""
    left = sum(
        w.revision == desk.actor.revision and w.status is not WorkerStatus.STOPPING
        for w in desk.workers.values()
    )
    if left < desk.actor.definition.min_workers - desk.not_replaced:
        desk.not_replaced += 1
