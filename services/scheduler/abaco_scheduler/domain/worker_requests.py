"""Worker requests: which actor gets one more worker, on which host, and which workers stop."""

from collections import Counter
from collections.abc import Iterator

from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import Expected
from abaco_proto.names import worker_requests_filter
from abaco_proto.state_keys import WorkerKey
from abaco_proto.worker import Worker
from abaco_scheduler.domain.actor_state import ActorState
from abaco_scheduler.domain.cluster import Cluster
from abaco_scheduler.domain.decision import Decision, Now
from abaco_scheduler.domain.policy import (
    DemandPriority,
    Policy,
    current_workers,
    demand_priority,
    surplus_workers,
)
from abaco_scheduler.domain.preemption import preemptions
from abaco_scheduler.domain.worker_demand import WorkerDemand, in_fair_order


def surplus_stops(
    state: ActorState, stopping: set[WorkerKey], policy: Policy, now: Now
) -> Iterator[Decision]:
    """Stop the workers that the actor no longer needs.

    ``stopping`` are the keys of workers that another decision of the same plan stops already.
    """
    for worker, reason in surplus_workers(state, policy, now.time):
        if (state.tenant, worker.worker_id) not in stopping:
            yield _stop(state, worker, reason)


def _stop(state: ActorState, worker: Worker, reason: str) -> Decision:
    event = ev.WorkerStopRequested(
        actor_id=worker.actor_id,
        worker_id=worker.worker_id,
        host_id=worker.host_id,
        reason=reason,
    )
    return Decision(tenant=state.tenant, event=event, causation_id=f"{worker.worker_id}.ready")


def requests_and_preemptions(
    cluster: Cluster, states: list[ActorState], policy: Policy, now: Now
) -> Iterator[Decision]:
    """Request workers in free slots, in the order of demand; then preempt for what is left.

    ``states`` are the actors that may demand a worker; any actor's worker may be preempted.
    """
    demands = _demands(states, policy, now)
    if not demands:
        return
    tenant_workers = _tenant_workers(cluster)
    free_slots = {
        host.host_id: host.capacity - cluster.worker_counts[host.host_id]
        for host in cluster.hosts.values()
        if host.joined
    }
    unmet: list[WorkerDemand] = []
    for demand in in_fair_order(demands, tenant_workers, cluster.tenant_assigned_at):
        if tenant_workers[demand.tenant] >= policy.max_tenant_workers:
            continue
        host_id = _host_with_most_free_slots(free_slots)
        if host_id is None:
            unmet.append(demand)
            continue
        free_slots[host_id] -= 1
        tenant_workers[demand.tenant] += 1
        yield _request(cluster, cluster.actors[demand.key], demand, host_id)
    if unmet:
        states = cluster.actors_with_workers()
        for found in preemptions(states, unmet, tenant_workers, policy, now.time):
            yield _stop(found.state, found.worker, found.reason)


def _demands(states: list[ActorState], policy: Policy, now: Now) -> list[WorkerDemand]:
    """Return at most one demand per actor: the next event causes the next plan."""
    demands = []
    for state in states:
        priority = demand_priority(state, policy, now.time)
        if priority is not None:
            demands.append(
                WorkerDemand(
                    priority,
                    len(current_workers(state)),
                    state.last_assigned_at,
                    state.actor.actor_id,
                    state.tenant,
                )
            )
    return demands


def _tenant_workers(cluster: Cluster) -> Counter[str]:
    """Return how many workers each tenant has, without those that stop."""
    workers: Counter[str] = Counter()
    for key in cluster.with_workers:
        state = cluster.actors[key]
        workers[state.tenant] += len(current_workers(state))
    return workers


def _host_with_most_free_slots(free_slots: dict[str, int]) -> str | None:
    """Return the id of a host; on a tie the first by name, so that plans are reproducible."""
    best = max(sorted(free_slots), key=lambda host_id: free_slots[host_id], default=None)
    return best if best is not None and free_slots[best] > 0 else None


_REASONS = {
    DemandPriority.MESSAGES_WITHOUT_WORKER: "messages wait and there is no worker",
    DemandPriority.UNTRIED_IMAGE: "the image was not tried yet",
    DemandPriority.MORE_MESSAGES: "more messages wait than workers are idle",
    DemandPriority.MIN_WORKERS: "below min_workers",
}

_FOR_MESSAGES = (DemandPriority.MESSAGES_WITHOUT_WORKER, DemandPriority.MORE_MESSAGES)


def _request(cluster: Cluster, state: ActorState, demand: WorkerDemand, host_id: str) -> Decision:
    actor = state.actor
    event = ev.WorkerRequested(
        actor_id=actor.actor_id,
        worker_id=names.worker_id(actor.actor_id, state.next_worker_number),
        host_id=host_id,
        revision=actor.revision,
        actor_sequence=actor.definition_sequence,
        reason=_REASONS[demand.priority],
        warm=demand.priority not in _FOR_MESSAGES,
    )
    # The condition covers the requests for all actors: another scheduler may have filled the host.
    condition = Expected(filter=worker_requests_filter(), sequence=cluster.worker_request_sequence)
    return Decision(
        tenant=state.tenant,
        event=event,
        causation_id=f"{actor.actor_id}.registered",
        expected=condition,
    )
