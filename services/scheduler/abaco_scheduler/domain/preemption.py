"""Preemption: which worker stops to free a slot when there are fewer slots than demands.

Theory: the workers of actors without messages are preempted first, the cheapest first. Then
tenants with messages get equal shares, and then the actors of each tenant: one with fewer workers
gets the slot of one that has at least two more. Such a move never reverses the order, so slots move
only towards balance and then stay. Where more tenants, or actors of a tenant, have messages than
there are slots, each has one worker at most, and they alternate in time slices. No execution is
interrupted: a worker is preempted when its execution has ended, before it gets the next message of
its actor. (docs/adr/0010)
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import IntEnum

import msgspec

from abaco_proto.state_keys import ActorKey
from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.domain.actor_state import ActorState
from abaco_scheduler.domain.policy import (
    DemandPriority,
    Policy,
    current_workers,
    idle_workers,
    minimum_workers,
    ready_backlog,
)
from abaco_scheduler.domain.worker_demand import WorkerDemand


class Preemption(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that is stopped to meet the demand of another actor. ``state`` is its actor's."""

    state: ActorState
    worker: Worker
    reason: str


def preemptions(
    states: list[ActorState],
    unmet: list[WorkerDemand],
    tenant_workers: Mapping[str, int],
    policy: Policy,
    now: datetime,
) -> Iterator[Preemption]:
    """Return workers of these actors to stop for demands that found no free slot.

    Demands that a worker already stopping will serve preempt nothing. ``tenant_workers`` has the
    number of workers of each tenant, without those that stop.
    """
    freed = _slots_about_to_be_free(states)
    demands = unmet[freed:]
    if not demands:
        return
    shares = Counter(tenant_workers)
    shares.update(demand.tenant for demand in unmet[:freed])
    unused = _workers_without_messages(states, policy, now)
    busy = _actors_with_messages(states, policy, now)
    for demand in demands:
        found = _preempt_unused(unused, demand)
        if found is None:
            fair = (actor for actor in busy if _is_fair(actor, demand, shares, policy, now))
            found = _preempt_for_share(demand, fair, shares)
        if found is not None:
            shares[found.state.tenant] -= 1
            shares[demand.tenant] += 1
            yield found


def _slots_about_to_be_free(states: list[ActorState]) -> int:
    """Count the stopping workers that do not run an execution, which may take long."""
    return sum(
        w.status is WorkerStatus.STOPPING and w.execution_id is None
        for state in states
        for w in state.workers.values()
    )


# -- workers of actors without messages ----------------------------------------------------------


class PreemptionCost(IntEnum):
    """What an actor without messages loses with a worker; the lowest cost first."""

    SURPLUS = 0
    MINIMUM = 1
    LAST = 2


_MAX_COST = {
    DemandPriority.MESSAGES_WITHOUT_WORKER: PreemptionCost.LAST,
    DemandPriority.UNTRIED_IMAGE: PreemptionCost.LAST,
    DemandPriority.MORE_MESSAGES: PreemptionCost.MINIMUM,
    DemandPriority.MIN_WORKERS: PreemptionCost.SURPLUS,
}
"""The highest cost to another actor that a demand justifies."""

_UnusedWorker = tuple[PreemptionCost, ActorState, Worker]


def _workers_without_messages(
    states: list[ActorState], policy: Policy, now: datetime
) -> list[_UnusedWorker]:
    """Return idle workers of actors without messages: the cheapest, then the longest idle first."""
    found = []
    for state in states:
        if ready_backlog(state, policy, now):
            continue
        remaining = len(current_workers(state))
        for worker in idle_workers(state):
            remaining -= 1
            found.append((_cost(state, remaining), state, worker))
    return sorted(found, key=lambda unused: (unused[0], unused[2].updated_at))


def _cost(state: ActorState, remaining: int) -> PreemptionCost:
    """Return what it costs an actor to have only ``remaining`` workers."""
    if not remaining:
        return PreemptionCost.LAST
    enough = remaining >= minimum_workers(state)
    return PreemptionCost.SURPLUS if enough else PreemptionCost.MINIMUM


def _preempt_unused(unused: list[_UnusedWorker], demand: WorkerDemand) -> Preemption | None:
    """Take the cheapest worker of another actor from the list, if the demand justifies its cost."""
    for index, (cost, state, worker) in enumerate(unused):
        if cost > _MAX_COST[demand.priority]:
            return None
        if state.key != demand.key:
            del unused[index]
            reason = "another actor needs the slot"
            if state.tenant == demand.tenant:
                reason = f"actor {demand.actor_id} needs the slot"
            return Preemption(state=state, worker=worker, reason=reason)
    return None


# -- workers of actors with messages -------------------------------------------------------------


class _BusyActor:
    """An actor with messages, its number of workers, and those of them that are idle now."""

    def __init__(self, state: ActorState) -> None:
        self.state = state
        self.worker_count = len(current_workers(state))
        self.idle = idle_workers(state)

    @property
    def time_slice_start(self) -> datetime | None:
        """When the first idle worker got its first message; None if it has had none."""
        return self.state.working_since.get(self.idle[0].worker_id)


def _actors_with_messages(
    states: list[ActorState], policy: Policy, now: datetime
) -> list[_BusyActor]:
    busy = [_BusyActor(state) for state in states if ready_backlog(state, policy, now)]
    return [actor for actor in busy if actor.idle]


def _preempt_for_share(
    demand: WorkerDemand, fair: Iterable[_BusyActor], shares: Mapping[str, int]
) -> Preemption | None:
    """Take an idle worker from the actor of those that has the most of them in its tenant."""
    if demand.priority not in (
        DemandPriority.MESSAGES_WITHOUT_WORKER,
        DemandPriority.MORE_MESSAGES,
    ):
        return None
    actor = max(fair, key=lambda actor: _preemption_order(actor, shares), default=None)
    if actor is None:
        return None
    actor.worker_count -= 1
    reason = "fair share: messages of another actor wait"
    if actor.state.tenant == demand.tenant:
        reason = f"fair share: messages of actor {demand.actor_id} wait"
    return Preemption(state=actor.state, worker=actor.idle.pop(0), reason=reason)


def _preemption_order(
    actor: _BusyActor, shares: Mapping[str, int]
) -> tuple[int, int, float, ActorKey]:
    """The most workers come last: of the tenant, then of the actor; then the earliest assignment.

    The key makes plans reproducible.
    """
    state = actor.state
    return (
        shares[state.tenant],
        actor.worker_count,
        -state.last_assigned_at.timestamp(),
        state.key,
    )


def _is_fair(
    actor: _BusyActor,
    demand: WorkerDemand,
    shares: Mapping[str, int],
    policy: Policy,
    now: datetime,
) -> bool:
    """Return whether an actor has an idle worker too many, or its time slice is over.

    Actors of one tenant are compared by their own workers, actors of two by those of the tenants.
    """
    if not actor.idle:
        return False
    has, wants = actor.worker_count, demand.worker_count
    if actor.state.tenant != demand.tenant:
        has, wants = shares[actor.state.tenant], shares[demand.tenant]
    if has > wants + 1:
        return True
    alternating = has == 1 and wants == 0
    start = actor.time_slice_start
    time_slice = timedelta(seconds=policy.time_slice_seconds)
    return alternating and start is not None and now - start >= time_slice
