"""Seats: who gets one more worker, and whose is given up."""

from collections.abc import Iterator
from enum import IntEnum

import msgspec

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.log import Expected
from abaco_proto.subjects import worker_requests_filter
from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.cluster import Cluster, Desk
from abaco_scheduler.decision import Decision, Now
from abaco_scheduler.policy import (
    Need,
    Policy,
    current_workers,
    idle_workers,
    need,
    superfluous_workers,
)


def releases(desk: Desk, policy: Policy, now: Now) -> Iterator[Decision]:
    """The workers an actor gives up for its own sake."""
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


def seats(cluster: Cluster, desks: list[Desk], policy: Policy, now: Now) -> Iterator[Decision]:
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


class Loss(IntEnum):
    """What an actor with nothing to do loses with a worker; the smallest loss first."""

    SURPLUS = 0
    MINIMUM = 1
    LAST = 2


_WORTH = {
    Need.WORK_AND_NO_WORKER: Loss.LAST,
    Need.UNTRIED: Loss.LAST,
    Need.WORK: Loss.MINIMUM,
    Need.MINIMUM: Loss.SURPLUS,
}
"""The greatest loss to another actor that a need is worth."""


def _evictions(cluster: Cluster, unmet: list[_Wish]) -> Iterator[Decision]:
    """Idle workers make room for actors in need, as many as there are not seats coming free."""
    stopping = sum(
        w.status is WorkerStatus.STOPPING
        for desk in cluster.desks.values()
        for w in desk.workers.values()
    )
    wishes = unmet[stopping:]
    victims = _victims(cluster) if wishes else []
    for wish in wishes:
        for victim in victims:
            loss, desk, worker = victim
            if desk.actor.actor_id != wish.actor_id and loss <= _WORTH[wish.need]:
                victims.remove(victim)
                yield _release(desk, worker, f"actor {wish.actor_id} needs the seat")
                break


def _victims(cluster: Cluster) -> list[tuple[Loss, Desk, Worker]]:
    """Idle workers of actors with nothing to do: the smallest loss, and the longest idle, first."""
    found = []
    for desk in cluster.desks.values():
        if desk.backlog:
            continue
        left = len(current_workers(desk))
        for worker in idle_workers(desk):
            left -= 1
            found.append((_loss(desk, left), desk, worker))
    return sorted(found, key=lambda victim: (victim[0], victim[2].updated_at))


def _loss(desk: Desk, left: int) -> Loss:
    """What it costs an actor to have ``left`` workers left."""
    if not left:
        return Loss.LAST
    return Loss.SURPLUS if left >= desk.actor.definition.min_workers else Loss.MINIMUM
