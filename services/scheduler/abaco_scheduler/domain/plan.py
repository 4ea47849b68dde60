"""The plan: the difference between the observed and the desired cluster, as events to append.

Pure: a cluster and a moment in, decisions out. Every decision has a condition, or an event id,
that admits it once: of two schedulers that decide the same, only one gets its event into the log.

Safety, whatever is in the log (``tests/unit/test_scheduler_properties.py``): no message is on two
live workers, none is lost, none overtakes another of its actor, a stateful actor has one worker at
most, and no host gets more workers than its capacity.
"""

from collections.abc import Iterable, Iterator

from abaco_proto import events as ev
from abaco_proto.envelope import Expected
from abaco_proto.names import host_filter
from abaco_proto.state_keys import WorkerKey
from abaco_scheduler.domain.cluster import Cluster, Host
from abaco_scheduler.domain.decision import Decision, Now
from abaco_scheduler.domain.message_assignment import assignments, terminations
from abaco_scheduler.domain.policy import Policy, is_reconciled
from abaco_scheduler.domain.worker_requests import requests_and_preemptions, surplus_stops


def plan(cluster: Cluster, policy: Policy, now: Now) -> list[Decision]:
    """Return all events that should be appended now, in order.

    Only the cluster's set ``unreconciled`` is changed: it keeps the actors that the next plan must
    examine even without a new event.
    """
    decisions = [*_host_decisions(cluster, policy, now)]
    keys = sorted(cluster.unreconciled)
    states = [cluster.actors[key] for key in keys if key in cluster.actors]
    worker_decisions = [*requests_and_preemptions(cluster, states, policy, now)]
    stopping = {*_stopped_workers(worker_decisions)}
    for state in states:
        decisions += terminations(state, policy)
        decisions += assignments(state, stopping, policy, now)
        decisions += surplus_stops(state, stopping, policy, now)
    cluster.unreconciled = {
        state.key for state in states if not is_reconciled(state, policy, now.time)
    }
    return decisions + worker_decisions


def _stopped_workers(decisions: Iterable[Decision]) -> Iterator[WorkerKey]:
    """Return the keys of the workers that decisions stop."""
    for decision in decisions:
        if isinstance(decision.event, ev.WorkerStopRequested):
            yield decision.tenant, decision.event.worker_id


# -- hosts ---------------------------------------------------------------------------------------


def _host_decisions(cluster: Cluster, policy: Policy, now: Now) -> Iterator[Decision]:
    for host in cluster.hosts.values():
        silence = now.monotonic - max(host.last_heartbeat, now.connected_since)
        if silence <= policy.host_timeout_seconds:
            changed = not host.joined or host.announced_capacity != host.capacity
            if host.last_heartbeat and changed:
                joined = ev.HostJoined(host_id=host.host_id, capacity=host.announced_capacity)
                yield _host_decision(host, joined, "heartbeat")
        elif host.joined:
            reason = f"no heartbeat for {silence:.0f} s"
            lost = ev.HostLost(host_id=host.host_id, reason=reason)
            yield _host_decision(host, lost, "silence")
        if not host.joined and cluster.worker_counts[host.host_id]:
            yield from _lost_workers(cluster, host)


def _host_decision(host: Host, event: ev.Event, cause: str) -> Decision:
    condition = Expected(filter=host_filter(host.tenant, host.host_id), sequence=host.sequence)
    return Decision(
        tenant=host.tenant,
        event=event,
        causation_id=f"{cause}.{host.host_id}",
        expected=condition,
    )


def _lost_workers(cluster: Cluster, host: Host) -> Iterator[Decision]:
    """All workers of a lost host are lost."""
    for state in cluster.actors_with_workers():
        for worker in state.workers.values():
            if worker.host_id == host.host_id:
                event = ev.WorkerLost(
                    actor_id=worker.actor_id,
                    worker_id=worker.worker_id,
                    host_id=host.host_id,
                    reason=f"host {host.host_id} is lost",
                )
                yield Decision(
                    tenant=state.tenant, event=event, causation_id=f"{host.host_id}.lost"
                )
