"""The plan: the difference between what is and what should be, as events to append.

Pure: a cluster and a moment in, decisions out. Every decision carries the condition under which
it holds, so that of two schedulers that decide the same only one gets its event into the log.

Safety, whatever the log says (``tests/unit/test_scheduler_properties.py``): no message is with
two live workers, none is forgotten, none overtakes another of its actor, a stateful actor has
one worker at most, no host gets more workers than it has room for.
"""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.log import Expected
from abaco_proto.subjects import (
    assignments_filter,
    host_filter,
    worker_requests_filter,
)
from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.cluster import Cluster, Desk, Host, Task
from abaco_scheduler.policy import (
    Need,
    Policy,
    current_workers,
    idle_workers,
    is_settled,
    need,
    superfluous_workers,
)


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """A moment on both clocks, and since when (monotonic) heartbeats could be heard at all."""

    time: datetime
    monotonic: float
    listening_since: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An event to append, its cause, and the condition under which it holds."""

    tenant: str
    event: ev.Event
    causation_id: str
    correlation_id: str | None = None
    expected: Expected | None = None


def plan(cluster: Cluster, policy: Policy, now: Now) -> list[Decision]:
    """All that should be appended now. The cluster is left as it is, but for ``unsettled``."""
    decisions = [*_hosts(cluster, policy, now)]
    desks = [cluster.desks[key] for key in sorted(cluster.unsettled) if key in cluster.desks]
    for desk in desks:
        decisions += _assignments(desk, policy)
        decisions += _releases(desk, policy, now)
    decisions += _seats(cluster, desks, policy, now)
    cluster.unsettled = {
        (desk.tenant, desk.actor.actor_id) for desk in desks if not is_settled(desk)
    }
    return decisions


# -- hosts ---------------------------------------------------------------------------------------


def _hosts(cluster: Cluster, policy: Policy, now: Now) -> Iterator[Decision]:
    for host in cluster.hosts.values():
        silent = now.monotonic - max(host.heard_at, now.listening_since)
        if silent <= policy.host_timeout_seconds:
            if host.heard_at and (not host.joined or host.offered != host.capacity):
                event = ev.HostJoined(host_id=host.host_id, capacity=host.offered)
                yield _host_decision(host, event, "heartbeat")
        elif host.joined:
            reason = f"no heartbeat for {silent:.0f} s"
            yield _host_decision(host, ev.HostLost(host_id=host.host_id, reason=reason), "silence")
        if not host.joined and cluster.load[host.host_id]:
            yield from _losses(cluster, host)


def _host_decision(host: Host, event: ev.Event, cause: str) -> Decision:
    condition = Expected(filter=host_filter(host.tenant, host.host_id), sequence=host.sequence)
    return Decision(
        tenant=host.tenant,
        event=event,
        causation_id=f"{cause}.{host.host_id}",
        expected=condition,
    )


def _losses(cluster: Cluster, host: Host) -> Iterator[Decision]:
    """A lost host takes its workers with it."""
    for desk in cluster.desks.values():
        for worker in desk.workers.values():
            if worker.host_id == host.host_id:
                event = ev.WorkerLost(
                    actor_id=worker.actor_id,
                    worker_id=worker.worker_id,
                    host_id=host.host_id,
                    reason=f"host {host.host_id} is lost",
                )
                yield Decision(tenant=desk.tenant, event=event, causation_id=f"{host.host_id}.lost")


# -- messages ------------------------------------------------------------------------------------


def _assignments(desk: Desk, policy: Policy) -> Iterator[Decision]:
    """The next messages to the idle workers, in the order of the inbox."""
    workers = iter(idle_workers(desk) if desk.actor.exists else ())
    for task in _next_tasks(desk):
        if not desk.actor.exists:
            yield _abandonment(desk, task, "the actor was deleted")
            continue
        if task.attempt >= policy.max_attempts:
            yield _abandonment(desk, task, task.reason)
            continue
        worker = next(workers, None)
        if worker is None or not _may_start(desk):
            return
        yield _assignment(desk, task, worker)
        if not desk.actor.definition.stateless:
            return


def _may_start(desk: Desk) -> bool:
    """A stateful actor runs one message at a time."""
    return desk.actor.definition.stateless or not desk.running


def _next_tasks(desk: Desk) -> Iterator[Task]:
    yield from sorted(desk.retries.values(), key=lambda task: task.ordinal)
    for n, sequence in enumerate(desk.waiting):
        if desk.next_ordinal + n not in desk.halted:
            yield Task(desk.next_ordinal + n, sequence)


def _assignment(desk: Desk, task: Task, worker: Worker) -> Decision:
    actor = desk.actor
    execution_id = ids.execution_id(actor.actor_id, task.ordinal)
    event = ev.ExecutionAssigned(
        actor_id=actor.actor_id,
        execution_id=execution_id,
        ordinal=task.ordinal,
        attempt=task.attempt + 1,
        worker_id=worker.worker_id,
        host_id=worker.host_id,
        message_sequence=task.message_sequence,
        actor_sequence=actor.definition_sequence,
    )
    condition = Expected(
        filter=assignments_filter(desk.tenant, actor.actor_id), sequence=desk.assigned_sequence
    )
    received = f"{execution_id}.received"
    return Decision(
        tenant=desk.tenant,
        event=event,
        causation_id=received if not task.attempt else f"{execution_id}.assigned.{task.attempt}",
        correlation_id=received,
        expected=condition,
    )


def _abandonment(desk: Desk, task: Task, reason: str) -> Decision:
    execution_id = ids.execution_id(desk.actor.actor_id, task.ordinal)
    event = ev.ExecutionAbandoned(
        actor_id=desk.actor.actor_id,
        execution_id=execution_id,
        attempts=task.attempt,
        reason=reason,
    )
    return Decision(
        tenant=desk.tenant,
        event=event,
        causation_id=f"{execution_id}.assigned.{task.attempt}",
        correlation_id=f"{execution_id}.received",
    )


# -- workers -------------------------------------------------------------------------------------


def _releases(desk: Desk, policy: Policy, now: Now) -> Iterator[Decision]:
    for worker, reason in superfluous_workers(desk, policy, now.time):
        yield _release(desk, worker, reason)


def _release(desk: Desk, worker: Worker, reason: str) -> Decision:
    event = ev.WorkerStopRequested(
        actor_id=worker.actor_id,
        worker_id=worker.worker_id,
        host_id=worker.host_id,
        reason=reason,
    )
    return Decision(tenant=desk.tenant, event=event, causation_id=f"{worker.worker_id}.ready")


class _Wish(msgspec.Struct, frozen=True, order=True):
    """One more worker for an actor; the least wish is granted first."""

    need: Need
    have: int
    actor_id: str
    tenant: str


def _seats(cluster: Cluster, desks: list[Desk], policy: Policy, now: Now) -> Iterator[Decision]:
    """Free seats to those who need them most, one each in turn; then idle ones for the needy."""
    free = {
        host.host_id: host.capacity - cluster.load[host.host_id]
        for host in cluster.hosts.values()
        if host.joined
    }
    unmet: list[_Wish] = []
    for wish in _wishes(desks, policy, now):
        desk = cluster.desks[wish.tenant, wish.actor_id]
        host_id = _roomiest(free)
        if host_id is None:
            unmet.append(wish)
            continue
        free[host_id] -= 1
        yield _request(cluster, desk, wish, host_id)
    yield from _evictions(cluster, unmet)


def _wishes(desks: list[Desk], policy: Policy, now: Now) -> list[_Wish]:
    """At most one wish per actor and plan: the next event brings the next plan."""
    wishes = []
    for desk in desks:
        found = need(desk, policy, now.time)
        if found is not None:
            have = len(current_workers(desk))
            wishes.append(_Wish(found, have, desk.actor.actor_id, desk.tenant))
    return sorted(wishes)


def _roomiest(free: dict[str, int]) -> str | None:
    """The host with the most room; ties go to the first name, so that the answer is one."""
    best = max(sorted(free), key=lambda host_id: free[host_id], default=None)
    return best if best is not None and free[best] > 0 else None


_REASONS = {
    Need.WORK_AND_NO_WORKER: "messages wait and there is no worker",
    Need.UNTRIED: "the image was not tried yet",
    Need.WORK: "more messages wait than workers are idle",
    Need.MINIMUM: "below min_workers",
}


def _request(cluster: Cluster, desk: Desk, wish: _Wish, host_id: str) -> Decision:
    actor = desk.actor
    event = ev.WorkerRequested(
        actor_id=actor.actor_id,
        worker_id=ids.worker_id(actor.actor_id, desk.worker_count),
        host_id=host_id,
        revision=actor.revision,
        actor_sequence=actor.definition_sequence,
        reason=_REASONS[wish.need],
    )
    # On all requests, not only this actor's: another scheduler may have filled the host.
    condition = Expected(filter=worker_requests_filter(), sequence=cluster.requested_sequence)
    return Decision(
        tenant=desk.tenant,
        event=event,
        causation_id=f"{actor.actor_id}.registered",
        expected=condition,
    )


def _evictions(cluster: Cluster, unmet: list[_Wish]) -> Iterator[Decision]:
    """Idle workers make room for actors in need, as many as there are not seats coming free."""
    pressing = [wish for wish in unmet if wish.need is not Need.MINIMUM]
    if not pressing:
        return
    stopping = sum(
        w.status is WorkerStatus.STOPPING
        for desk in cluster.desks.values()
        for w in desk.workers.values()
    )
    victims = _victims(cluster)
    for wish in pressing[stopping:]:
        last_seats_too = wish.need is not Need.WORK
        for desk, worker, spare in victims:
            if desk.actor.actor_id != wish.actor_id and (spare or last_seats_too):
                victims.remove((desk, worker, spare))
                yield _release(desk, worker, f"actor {wish.actor_id} needs the seat")
                break


def _victims(cluster: Cluster) -> list[tuple[Desk, Worker, bool]]:
    """Idle workers of actors with nothing to do, an actor's last one after all others.

    The flag says whether the actor would still have another.
    """
    found = []
    for desk in cluster.desks.values():
        if desk.backlog:
            continue
        have = len(current_workers(desk))
        for n, worker in enumerate(idle_workers(desk), start=1):
            found.append((desk, worker, n < have))
    return sorted(found, key=lambda victim: (not victim[2], victim[1].updated_at))
