"""Preemption: which worker stops to free a slot when there are fewer slots than demands.

Theory: the workers of actors without messages are preempted first, the cheapest first. Then
actors with messages get equal shares: an actor with fewer workers gets the slot of an actor that
has at least two more. Such a move never reverses the order, so slots move only towards balance and
then stay. Where more actors have messages than there are slots, each has one worker at most, and
they alternate in time slices. No execution is interrupted: a worker is preempted when its
execution has ended, before it gets the next message of its actor. (docs/adr/0010)
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import IntEnum

import msgspec

from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.domain.actor_state import ActorKey, ActorState
from abaco_scheduler.domain.policy import (
    DemandPriority,
    Policy,
    current_workers,
    idle_workers,
    minimum_workers,
    ready_backlog,
)


class WorkerDemand(msgspec.Struct, frozen=True, order=True):
    """The demand of an actor for one more worker; demands are served in ascending order.

    ``worker_count`` is the number of workers that the actor has. Among equals the actor comes
    first that was last assigned a message the longest time ago: otherwise it could get back the
    very slot that it was preempted from, while others wait.
    """

    priority: DemandPriority
    worker_count: int
    last_assigned_at: datetime
    actor_id: str
    tenant: str

    @property
    def key(self) -> ActorKey:
        """The key of the actor in the cluster."""
        return self.tenant, self.actor_id


class Preemption(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that is stopped to meet the demand of another actor. ``state`` is its actor's."""

    state: ActorState
    worker: Worker
    reason: str


def preemptions(
    states: list[ActorState], unmet: list[WorkerDemand], policy: Policy, now: datetime
) -> Iterator[Preemption]:
    """Return workers of these actors to stop for demands that found no free slot.

    Demands that a worker already stopping will serve preempt nothing.
    """
    demands = unmet[_slots_about_to_be_free(states) :]
    if not demands:
        return
    unused = _workers_without_messages(states, policy, now)
    busy = _actors_with_messages(states, policy, now)
    for demand in demands:
        found = _preempt_unused(unused, demand) or _preempt_for_share(busy, demand, policy, now)
        if found is not None:
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
    busy: list[_BusyActor], demand: WorkerDemand, policy: Policy, now: datetime
) -> Preemption | None:
    """Take an idle worker from the actor that has the most of them, if that is fair."""
    if demand.priority not in (
        DemandPriority.MESSAGES_WITHOUT_WORKER,
        DemandPriority.MORE_MESSAGES,
    ):
        return None
    fair = [actor for actor in busy if actor.idle and _is_fair(actor, demand, policy, now)]
    if not fair:
        return None
    actor = max(fair, key=_preemption_order)
    actor.worker_count -= 1
    reason = f"fair share: messages of actor {demand.actor_id} wait"
    return Preemption(state=actor.state, worker=actor.idle.pop(0), reason=reason)


def _preemption_order(actor: _BusyActor) -> tuple[int, float, ActorKey]:
    """The most workers come last, then the earliest assignment, then the key."""
    return actor.worker_count, -actor.state.last_assigned_at.timestamp(), actor.state.key


def _is_fair(actor: _BusyActor, demand: WorkerDemand, policy: Policy, now: datetime) -> bool:
    """Return whether the demand has at least two workers fewer, or a time slice is over."""
    if actor.worker_count > demand.worker_count + 1:
        return True
    alternating = actor.worker_count == 1 and demand.worker_count == 0
    start = actor.time_slice_start
    time_slice = timedelta(seconds=policy.time_slice_seconds)
    return alternating and start is not None and now - start >= time_slice
