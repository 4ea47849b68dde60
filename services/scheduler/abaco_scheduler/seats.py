"""Seats: who gets one more worker, and whose is given up."""

from collections.abc import Iterator

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.log import Expected
from abaco_proto.subjects import worker_requests_filter
from abaco_proto.worker import Worker
from abaco_scheduler.cluster import Cluster, Desk
from abaco_scheduler.decision import Decision, Now
from abaco_scheduler.policy import (
    Need,
    Policy,
    current_workers,
    need,
    superfluous_workers,
)
from abaco_scheduler.sharing import Wish, loans


def releases(desk: Desk, leaving: set[str], policy: Policy, now: Now) -> Iterator[Decision]:
    """The workers an actor gives up for its own sake, but those that are leaving anyway."""
    for worker, reason in superfluous_workers(desk, policy, now.time):
        if worker.worker_id not in leaving:
            yield _release(desk, worker, reason)


def _release(desk: Desk, worker: Worker, reason: str) -> Decision:
    event = ev.WorkerStopRequested(
        actor_id=worker.actor_id,
        worker_id=worker.worker_id,
        host_id=worker.host_id,
        reason=reason,
    )
    return Decision(tenant=desk.tenant, event=event, causation_id=f"{worker.worker_id}.ready")


def seats(cluster: Cluster, desks: list[Desk], policy: Policy, now: Now) -> Iterator[Decision]:
    """Free seats to those who need them most, one each in turn; then those of others."""
    free = {
        host.host_id: host.capacity - cluster.load[host.host_id]
        for host in cluster.hosts.values()
        if host.joined
    }
    unmet: list[Wish] = []
    for wish in _wishes(desks, policy, now):
        host_id = _roomiest(free)
        if host_id is None:
            unmet.append(wish)
            continue
        free[host_id] -= 1
        yield _request(cluster, cluster.desks[wish.key], wish, host_id)
    if unmet:
        for loan in loans(cluster.seated_desks(), unmet, policy, now.time):
            yield _release(loan.desk, loan.worker, loan.reason)


def _wishes(desks: list[Desk], policy: Policy, now: Now) -> list[Wish]:
    """At most one wish per actor and plan: the next event brings the next plan."""
    wishes = []
    for desk in desks:
        found = need(desk, policy, now.time)
        if found is not None:
            have = len(current_workers(desk))
            wishes.append(Wish(found, have, desk.served_at, desk.actor.actor_id, desk.tenant))
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


def _request(cluster: Cluster, desk: Desk, wish: Wish, host_id: str) -> Decision:
    actor = desk.actor
    event = ev.WorkerRequested(
        actor_id=actor.actor_id,
        worker_id=ids.worker_id(actor.actor_id, desk.worker_count),
        host_id=host_id,
        revision=actor.revision,
        actor_sequence=actor.definition_sequence,
        reason=_REASONS[wish.need],
        warm=wish.need not in (Need.WORK_AND_NO_WORKER, Need.WORK),
    )
    # On all requests, not only this actor's: another scheduler may have filled the host.
    condition = Expected(filter=worker_requests_filter(), sequence=cluster.requested_sequence)
    return Decision(
        tenant=desk.tenant,
        event=event,
        causation_id=f"{actor.actor_id}.registered",
        expected=condition,
    )
