"""The observed cluster: a fold of the log that holds what decisions need, and no more.

Theory: of an actor's messages the scheduler keeps what
:mod:`abaco_scheduler.domain.inbox_state` describes; of its workers it keeps the live ones. The
rules of the aggregates are in ``abaco_proto``; this module only keeps track of the results.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from abaco_proto import actor, worker
from abaco_proto import events as ev
from abaco_proto.actor import Actor, ActorStatus
from abaco_proto.envelope import EPOCH, Recorded
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.names import HOST_ACTOR_PREFIX, worker_number
from abaco_proto.state_keys import ActorKey
from abaco_proto.worker import Worker
from abaco_scheduler.domain import inbox_state
from abaco_scheduler.domain.actor_state import (
    ActorState,
    affected_workers,
    apply_assignment,
    apply_manual_stop,
    without_large_fields,
)

MAX_LOST_HOSTS = 10_000
"""The number of lost hosts without workers that are kept. Where host names are random, every
restart of a host adds one."""


@dataclass(slots=True)
class Host:
    """A host.

    ``capacity`` is the number of slots in its last ``host.joined``, ``announced_capacity`` that in
    its last heartbeat. ``sequence`` is that of its last event, 0 if it has none.
    ``last_heartbeat`` is a reading of the monotonic clock in seconds, 0 before the first.
    """

    host_id: str
    tenant: str
    capacity: int = 0
    joined: bool = False
    sequence: int = 0
    announced_capacity: int = 0
    last_heartbeat: float = 0.0


@dataclass(slots=True)
class Cluster:
    """Everything the scheduler knows.

    ``worker_counts`` has the number of live workers of each host. ``unreconciled`` are the actors
    that may need a decision. ``with_workers`` are the actors that have live workers: never more
    than there are slots, however many actors there are. ``tenant_assigned_at`` has the time of the
    last assignment of each tenant. ``worker_request_sequence`` is that of the last request for a
    worker, ``sequence`` that of the last event.
    """

    actors: dict[ActorKey, ActorState] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    worker_counts: Counter[str] = field(default_factory=Counter)
    unreconciled: set[ActorKey] = field(default_factory=set)
    with_workers: set[ActorKey] = field(default_factory=set)
    tenant_assigned_at: dict[str, datetime] = field(default_factory=dict)
    worker_request_sequence: int = 0
    sequence: int = 0

    def record_heartbeat(self, heartbeat: Heartbeat, tenant: str, monotonic: float) -> None:
        """Record a heartbeat and when it was received (monotonic clock, seconds)."""
        host = self.hosts.setdefault(heartbeat.host_id, Host(heartbeat.host_id, tenant))
        host.announced_capacity = heartbeat.capacity
        host.last_heartbeat = monotonic

    def actors_with_workers(self) -> list[ActorState]:
        """Return the actors that have live workers, sorted by key."""
        return [self.actors[key] for key in sorted(self.with_workers)]


def apply_event(cluster: Cluster, recorded: Recorded) -> None:
    """Apply one more event.

    Never raises: an event that does not fit, or that was applied before, changes nothing.
    """
    if recorded.sequence <= cluster.sequence:
        return
    cluster.sequence = recorded.sequence
    event = recorded.event
    match event:
        case ev.HostJoined() | ev.HostLost():
            _apply_host_event(cluster, event, recorded)
        case ev.ActorRegistered():
            _apply_registration(cluster, event, recorded)
        case ev.Unrecognized():
            _apply_unrecognized(cluster, recorded)
        case _:
            key = (recorded.tenant, getattr(event, "actor_id", ""))
            if isinstance(event, ev.WorkerRequested):
                # A scheduler that lags may request a worker for an actor that was removed.
                cluster.worker_request_sequence = recorded.sequence
                deleted = Actor(actor_id=event.actor_id, status=ActorStatus.DELETED)
                cluster.actors.setdefault(key, ActorState(recorded.tenant, deleted))
            state = cluster.actors.get(key)
            if state is not None:
                _apply_to_actor(cluster, state, recorded)


def _apply_unrecognized(cluster: Cluster, recorded: Recorded) -> None:
    """Move the head of the history: conditions count events that cannot be decoded, too."""
    match recorded.subject.split("."):
        case [_, _, tenant, actor_id, "execution", "assigned", _]:
            state = cluster.actors.get((tenant, actor_id))
            if state is not None:
                state.assignment_sequence = recorded.sequence
        case [_, _, _, _, "worker", "requested", _]:
            cluster.worker_request_sequence = recorded.sequence
        case [_, _, _, actor_id, "host", _] if actor_id.startswith(HOST_ACTOR_PREFIX):
            host = cluster.hosts.get(actor_id.removeprefix(HOST_ACTOR_PREFIX))
            if host is not None:
                host.sequence = recorded.sequence


# -- hosts ---------------------------------------------------------------------------------------


def _apply_host_event(
    cluster: Cluster, event: ev.HostJoined | ev.HostLost, recorded: Recorded
) -> None:
    host = cluster.hosts.setdefault(event.host_id, Host(event.host_id, recorded.tenant))
    host.sequence = recorded.sequence
    host.joined = isinstance(event, ev.HostJoined)
    if isinstance(event, ev.HostJoined):
        host.capacity = event.capacity
        host.announced_capacity = host.announced_capacity or event.capacity
    else:
        _remove_oldest_lost_hosts(cluster)


def _remove_oldest_lost_hosts(cluster: Cluster) -> None:
    """Keep only the most recently lost hosts. A host without an event is kept: it may yet join."""
    lost = [
        host
        for host in cluster.hosts.values()
        if host.sequence and not host.joined and not cluster.worker_counts[host.host_id]
    ]
    lost.sort(key=lambda host: host.sequence)
    for host in lost[: max(0, len(lost) - MAX_LOST_HOSTS)]:
        del cluster.hosts[host.host_id]


# -- actors --------------------------------------------------------------------------------------


def _apply_registration(cluster: Cluster, event: ev.ActorRegistered, recorded: Recorded) -> None:
    key = (recorded.tenant, event.actor_id)
    if key not in cluster.actors:
        registered = without_large_fields(actor.evolve(actor.INITIAL, recorded))
        cluster.actors[key] = ActorState(recorded.tenant, registered)
        cluster.unreconciled.add(key)


def _apply_to_actor(cluster: Cluster, state: ActorState, recorded: Recorded) -> None:
    state.actor = actor.evolve(state.actor, recorded)
    _apply_to_workers(cluster, state, recorded)
    match recorded.event:
        case ev.ActorUpdated():
            state.worker_failures, state.worker_failed_at = 0, EPOCH
            state.manually_stopped = 0
            state.actor = without_large_fields(state.actor)
        case ev.ActorStateSet():
            state.state_sequence = recorded.sequence
            state.actor = without_large_fields(state.actor)
        case ev.ActorSubscribed():
            state.actor = without_large_fields(state.actor)
        case ev.ExecutionAssigned() as event:
            apply_assignment(state, event, recorded)
            cluster.tenant_assigned_at[state.tenant] = recorded.time
        case _:
            inbox_state.apply_event(state.inbox, recorded, actor_exists=state.actor.exists)
    cluster.unreconciled.add(state.key)
    (cluster.with_workers.add if state.workers else cluster.with_workers.discard)(state.key)
    if not (state.actor.exists or state.workers or state.inbox.running or state.inbox.retries):
        del cluster.actors[state.key]


# -- workers -------------------------------------------------------------------------------------


def _apply_to_workers(cluster: Cluster, state: ActorState, recorded: Recorded) -> None:
    event = recorded.event
    match event:
        case ev.WorkerRequested():
            _apply_worker_request(cluster, state, event, recorded)
            return
        case ev.WorkerReady():
            state.worker_failures, state.worker_failed_at = 0, EPOCH
        case ev.WorkerFailed() if event.revision == state.actor.revision:
            state.worker_failures += 1
            state.worker_failed_at = recorded.time
    for before in affected_workers(state, event):
        _apply_to_worker(cluster, state, before, recorded)


def _apply_worker_request(
    cluster: Cluster, state: ActorState, event: ev.WorkerRequested, recorded: Recorded
) -> None:
    number = worker_number(event.worker_id, event.actor_id)
    state.next_worker_number = max(state.next_worker_number, (number or 0) + 1)
    state.workers[event.worker_id] = worker.evolve(worker.INITIAL, recorded)
    cluster.worker_counts[event.host_id] += 1
    if not event.warm and state.manually_stopped:  # requested because messages wait
        state.manually_stopped -= 1


def _apply_to_worker(
    cluster: Cluster, state: ActorState, before: Worker, recorded: Recorded
) -> None:
    after = worker.evolve(before, recorded)
    if after.execution_id is None:
        state.stale_assignments.pop(after.worker_id, None)
    if after.live:
        state.workers[after.worker_id] = after
        if after.status is not before.status and _is_manual_stop(recorded.event):
            apply_manual_stop(state)
        return
    del state.workers[after.worker_id]
    state.working_since.pop(after.worker_id, None)
    state.stale_assignments.pop(after.worker_id, None)
    cluster.worker_counts[after.host_id] -= 1
    reason = f"worker {after.worker_id}: {after.status_message}"
    inbox_state.apply_worker_loss(state.inbox, after.worker_id, reason, recorded.id)


def _is_manual_stop(event: ev.Event) -> bool:
    return isinstance(event, ev.WorkerStopRequested) and event.reason == ev.REQUESTED_BY_CLIENT
