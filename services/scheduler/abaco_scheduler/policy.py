"""Policy: how many workers an actor should have, and who comes first when seats are short."""

from datetime import datetime, timedelta
from enum import IntEnum

import msgspec

from abaco_proto.actor import ActorStatus
from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.cluster import Desk
from abaco_scheduler.inbox import Task


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings decisions depend on; see ``config``."""

    host_timeout_seconds: float = 15.0
    max_attempts: int = 3
    retry_seconds: float = 1.0
    retry_max_seconds: float = 60.0
    turn_seconds: float = 2.0
    worker_retry_seconds: float = 10.0
    worker_retry_max_seconds: float = 600.0
    worker_ttl_seconds: float = 300.0


class Need(IntEnum):
    """How badly an actor needs one more seat; the lowest number first."""

    WORK_AND_NO_WORKER = 0
    UNTRIED = 1
    WORK = 2
    MINIMUM = 3


# -- messages ------------------------------------------------------------------------------------


def is_due(task: Task, policy: Policy, now: datetime) -> bool:
    """Whether the pause after a failed attempt is over; without a failure there is none."""
    pause = policy.retry_seconds * 2 ** min(max(task.tries - 1, 0), 30)
    return now >= task.failed_at + timedelta(seconds=min(pause, policy.retry_max_seconds))


def backlog(desk: Desk, policy: Policy, now: datetime) -> int:
    """How many messages wait for nothing but a worker.

    Those of a stateful actor wait for each other, too: none goes before one that pauses.
    """
    pausing = sum(not is_due(task, policy, now) for task in desk.inbox.retries.values())
    if pausing and not desk.actor.definition.stateless:
        return 0
    return desk.inbox.backlog - pausing


# -- workers -------------------------------------------------------------------------------------


def current_workers(desk: Desk) -> list[Worker]:
    """The workers that count: of the current revision and not about to stop."""
    return [
        w
        for w in desk.workers.values()
        if w.revision == desk.actor.revision and w.status is not WorkerStatus.STOPPING
    ]


def idle_workers(desk: Desk) -> list[Worker]:
    """The workers that could run a message now, the longest idle first.

    That one has had the most time to get its next sandbox ready.
    """
    idle = [w for w in current_workers(desk) if w.status is WorkerStatus.READY]
    return sorted(idle, key=lambda w: w.updated_at)


def least_workers(desk: Desk) -> int:
    """How many workers the actor keeps without messages."""
    return max(desk.actor.definition.min_workers - desk.not_replaced, 0)


def desired_workers(desk: Desk, policy: Policy, now: datetime) -> int:
    """How many workers the actor should have, were there room."""
    if not desk.actor.exists:
        return 0
    definition = desk.actor.definition
    work = len(desk.inbox.running) + backlog(desk, policy, now)
    most = definition.max_workers if definition.stateless else 1
    return min(max(work, least_workers(desk)), most)


def may_request(desk: Desk, policy: Policy, now: datetime) -> bool:
    """Whether a worker may be asked for at all now."""
    if not desk.actor.definition.stateless and desk.workers:
        return False  # at most one seat, whatever becomes of the old one
    if desk.actor.status is not ActorStatus.ERROR:
        return True
    # In error: one try at a time, further and further apart.
    trying = any(w.status is WorkerStatus.REQUESTED for w in current_workers(desk))
    return not trying and now >= retry_at(desk, policy)


def retry_at(desk: Desk, policy: Policy) -> datetime:
    """When a worker that failed may be asked for again."""
    pause = policy.worker_retry_seconds * 2 ** min(desk.failures - 1, 30)
    return desk.failed_at + timedelta(seconds=min(pause, policy.worker_retry_max_seconds))


def need(desk: Desk, policy: Policy, now: datetime) -> Need | None:
    """Why the actor should get one more worker; None when it should not."""
    have = len(current_workers(desk))
    if have >= desired_workers(desk, policy, now) or not may_request(desk, policy, now):
        return None
    work = backlog(desk, policy, now)
    if not have:
        return Need.WORK_AND_NO_WORKER if work else _without_work(desk)
    if work > len(idle_workers(desk)):
        return Need.WORK
    return Need.MINIMUM


def _without_work(desk: Desk) -> Need:
    return Need.UNTRIED if desk.actor.status is ActorStatus.SUBMITTED else Need.MINIMUM


def superfluous_workers(desk: Desk, policy: Policy, now: datetime) -> list[tuple[Worker, str]]:
    """The workers to give up for the actor's own sake, each with the reason."""
    given_up = [
        (w, "the actor was deleted" if not desk.actor.exists else "the actor was updated")
        for w in desk.workers.values()
        if (not desk.actor.exists or w.revision != desk.actor.revision)
        and w.status is not WorkerStatus.STOPPING
    ]
    if given_up or backlog(desk, policy, now):
        return given_up
    most = desk.actor.definition.max_workers if desk.actor.definition.stateless else 1
    lived = timedelta(seconds=policy.worker_ttl_seconds)
    excess = len(current_workers(desk)) - desired_workers(desk, policy, now)
    excess_now = len(current_workers(desk)) - most
    idle = sorted(idle_workers(desk), key=lambda w: w.requested_at, reverse=True)
    return [
        (w, "more than max_workers" if n < excess_now else "idle")
        for n, w in enumerate(idle[: max(excess, 0)])
        if n < excess_now or now - w.updated_at >= lived
    ]


def is_settled(desk: Desk, policy: Policy, now: datetime) -> bool:
    """Whether nothing but a new event can make a decision about this actor necessary."""
    have = current_workers(desk)
    return (
        not (desk.inbox.backlog or desk.late)
        and len(have) == len(desk.workers) == desired_workers(desk, policy, now)
        and desk.actor.exists
    )
