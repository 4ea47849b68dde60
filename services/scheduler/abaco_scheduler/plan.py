"""The plan: the difference between what is and what should be, as events to append.

Pure: a cluster and a moment in, decisions out. Every decision carries the condition under which
it holds, so that of two schedulers that decide the same only one gets its event into the log.

Safety, whatever the log says (``tests/unit/test_scheduler_properties.py``): no message is with
two live workers, none is forgotten, none overtakes another of its actor, a stateful actor has
one worker at most, no host gets more workers than it has room for.
"""

from collections.abc import Iterator

from abaco_proto import events as ev
from abaco_proto.log import Expected
from abaco_proto.subjects import host_filter
from abaco_scheduler.cluster import Cluster, Host
from abaco_scheduler.decision import Decision, Now
from abaco_scheduler.messages import assignments, endings
from abaco_scheduler.policy import Policy, is_settled
from abaco_scheduler.seats import releases, seats


def plan(cluster: Cluster, policy: Policy, now: Now) -> list[Decision]:
    """All that should be appended now. The cluster is left as it is, but for ``unsettled``."""
    decisions = [*_hosts(cluster, policy, now)]
    desks = [cluster.desks[key] for key in sorted(cluster.unsettled) if key in cluster.desks]
    moves = [*seats(cluster, desks, policy, now)]
    leaving = {_leaver(decision) for decision in moves}
    for desk in desks:
        decisions += endings(desk, policy)
        decisions += assignments(desk, leaving, policy, now)
        decisions += releases(desk, leaving, policy, now)
    cluster.unsettled = {desk.key for desk in desks if not is_settled(desk, policy, now.time)}
    return decisions + moves


def _leaver(decision: Decision) -> str:
    """The worker that a decision takes from its actor; nothing for none."""
    event = decision.event
    return event.worker_id if isinstance(event, ev.WorkerStopRequested) else ""


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
    for desk in cluster.seated_desks():
        for worker in desk.workers.values():
            if worker.host_id == host.host_id:
                event = ev.WorkerLost(
                    actor_id=worker.actor_id,
                    worker_id=worker.worker_id,
                    host_id=host.host_id,
                    reason=f"host {host.host_id} is lost",
                )
                yield Decision(tenant=desk.tenant, event=event, causation_id=f"{host.host_id}.lost")
