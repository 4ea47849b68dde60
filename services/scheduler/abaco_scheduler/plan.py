"""The plan: the difference between what is and what should be, as events to append.

Pure: a cluster and a moment in, decisions out. Every decision carries the condition under which
it holds, so that of two schedulers that decide the same only one gets its event into the log.

Safety, whatever the log says (``tests/unit/test_scheduler_properties.py``): no message is with
two live workers, none is forgotten, none overtakes another of its actor, a stateful actor has
one worker at most, no host gets more workers than it has room for.
"""

from collections.abc import Iterator

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.log import Expected
from abaco_proto.subjects import assignments_filter, host_filter
from abaco_proto.worker import Worker
from abaco_scheduler.cluster import Cluster, Desk, Host, Task
from abaco_scheduler.decision import Decision, Now
from abaco_scheduler.policy import Policy, idle_workers, is_settled
from abaco_scheduler.seats import releases, seats


def plan(cluster: Cluster, policy: Policy, now: Now) -> list[Decision]:
    """All that should be appended now. The cluster is left as it is, but for ``unsettled``."""
    decisions = [*_hosts(cluster, policy, now)]
    desks = [cluster.desks[key] for key in sorted(cluster.unsettled) if key in cluster.desks]
    for desk in desks:
        decisions += _assignments(desk, policy)
        decisions += releases(desk, policy, now)
    decisions += seats(cluster, desks, policy, now)
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
