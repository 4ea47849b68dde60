"""The policy: how many workers an actor should have, and which actor gets the next worker."""

from datetime import datetime, timedelta
from enum import IntEnum

import msgspec

from abaco_proto.actor import ActorStatus
from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.domain.actor_state import ActorState
from abaco_scheduler.domain.inbox_state import ExecutionState


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that decisions depend on.

    :class:`abaco_scheduler.scheduler_settings.SchedulerSettings` describes each; its
    ``turn_seconds`` is ``time_slice_seconds`` here.
    """

    host_timeout_seconds: float = 15.0
    max_attempts: int = 5
    retry_seconds: float = 1.0
    retry_max_seconds: float = 60.0
    time_slice_seconds: float = 2.0
    worker_retry_seconds: float = 10.0
    worker_retry_max_seconds: float = 600.0
    worker_ttl_seconds: float = 300.0
    max_tenant_workers: int = 2**31 - 1


class DemandPriority(IntEnum):
    """Why an actor needs one more worker; the lowest number is served first."""

    MESSAGES_WITHOUT_WORKER = 0
    UNTRIED_IMAGE = 1
    MORE_MESSAGES = 2
    MIN_WORKERS = 3


# -- messages ------------------------------------------------------------------------------------


def is_retry_due(execution: ExecutionState, policy: Policy, now: datetime) -> bool:
    """Return whether the pause after a failed attempt is over. A lost worker causes no pause."""
    pause = policy.retry_seconds * 2 ** min(max(execution.counted_attempts - 1, 0), 30)
    return now >= execution.failed_at + timedelta(seconds=min(pause, policy.retry_max_seconds))


def ready_backlog(state: ActorState, policy: Policy, now: datetime) -> int:
    """Return the number of messages that could run now if there were workers.

    A stateful actor runs its messages in order, so one that pauses holds back all of them.
    """
    pausing = sum(not is_retry_due(e, policy, now) for e in state.inbox.retries.values())
    if pausing and not state.actor.definition.stateless:
        return 0
    return state.inbox.backlog - pausing


# -- workers -------------------------------------------------------------------------------------


def current_workers(state: ActorState) -> list[Worker]:
    """Return the workers of the actor's current revision that are not stopping."""
    return [
        w
        for w in state.workers.values()
        if w.revision == state.actor.revision and w.status is not WorkerStatus.STOPPING
    ]


def idle_workers(state: ActorState) -> list[Worker]:
    """Return the workers that could run a message now, the longest idle first.

    The longest idle one has had the most time to prepare its next sandbox.
    """
    idle = [w for w in current_workers(state) if w.status is WorkerStatus.READY]
    return sorted(idle, key=lambda w: w.updated_at)


def minimum_workers(state: ActorState) -> int:
    """Return the number of workers that the actor keeps without messages."""
    return max(state.actor.definition.min_workers - state.manually_stopped, 0)


def maximum_workers(state: ActorState) -> int:
    """Return the number of workers that the actor may have: one if it is stateful."""
    return state.actor.definition.max_workers if state.actor.definition.stateless else 1


def desired_workers(state: ActorState, policy: Policy, now: datetime) -> int:
    """Return the number of workers that the actor should have, given enough slots."""
    if not state.actor.exists:
        return 0
    work = len(state.inbox.running) + ready_backlog(state, policy, now)
    return min(max(work, minimum_workers(state)), maximum_workers(state))


def may_request_worker(state: ActorState, policy: Policy, now: datetime) -> bool:
    """Return whether a worker may be requested now, whatever the reason."""
    if not state.actor.definition.stateless and state.workers:
        return False  # one worker at most, also while the old one stops
    if state.actor.status is not ActorStatus.ERROR:
        return True
    # In error: one request at a time, after pauses that grow.
    requested = any(w.status is WorkerStatus.REQUESTED for w in current_workers(state))
    return not requested and now >= worker_retry_at(state, policy)


def worker_retry_at(state: ActorState, policy: Policy) -> datetime:
    """Return when a worker may be requested again after the last one failed."""
    pause = policy.worker_retry_seconds * 2 ** min(state.worker_failures - 1, 30)
    return state.worker_failed_at + timedelta(seconds=min(pause, policy.worker_retry_max_seconds))


def demand_priority(state: ActorState, policy: Policy, now: datetime) -> DemandPriority | None:
    """Return why the actor should get one more worker; None if it should not."""
    count = len(current_workers(state))
    if count >= desired_workers(state, policy, now) or not may_request_worker(state, policy, now):
        return None
    work = ready_backlog(state, policy, now)
    if not count and work:
        return DemandPriority.MESSAGES_WITHOUT_WORKER
    if not count and state.actor.status is ActorStatus.SUBMITTED:
        return DemandPriority.UNTRIED_IMAGE
    if count and work > len(idle_workers(state)):
        return DemandPriority.MORE_MESSAGES
    return DemandPriority.MIN_WORKERS


def surplus_workers(state: ActorState, policy: Policy, now: datetime) -> list[tuple[Worker, str]]:
    """Return the workers that the actor no longer needs, each with the reason to stop it."""
    outdated = [
        (w, "the actor was deleted" if not state.actor.exists else "the actor was updated")
        for w in state.workers.values()
        if (not state.actor.exists or w.revision != state.actor.revision)
        and w.status is not WorkerStatus.STOPPING
    ]
    if outdated or ready_backlog(state, policy, now):
        return outdated
    time_to_live = timedelta(seconds=policy.worker_ttl_seconds)
    excess = len(current_workers(state)) - desired_workers(state, policy, now)
    above_maximum = len(current_workers(state)) - maximum_workers(state)
    idle = sorted(idle_workers(state), key=lambda w: w.requested_at, reverse=True)
    return [
        (w, "more than max_workers" if n < above_maximum else "idle")
        for n, w in enumerate(idle[: max(excess, 0)])
        if n < above_maximum or now - w.updated_at >= time_to_live
    ]


def is_reconciled(state: ActorState, policy: Policy, now: datetime) -> bool:
    """Return whether no decision about this actor can become due before its next event."""
    current = current_workers(state)
    return (
        not (state.inbox.backlog or state.stale_assignments)
        and len(current) == len(state.workers) == desired_workers(state, policy, now)
        and state.actor.exists
    )
