"""The state of one actor, as far as decisions depend on it: its definition, inbox and workers."""

from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.actor import Actor
from abaco_proto.envelope import EPOCH, Recorded
from abaco_proto.state_keys import ActorKey
from abaco_proto.worker import Worker, WorkerStatus
from abaco_scheduler.domain import inbox_state
from abaco_scheduler.domain.inbox_state import InboxState


@dataclass(slots=True)
class ActorState:
    """Everything the scheduler keeps of one actor. ``workers`` has the live ones, by id.

    ``stale_assignments`` maps a worker to the attempt that it was assigned after the execution had
    ended. ``working_since`` maps a worker to the time of its first assignment,
    ``last_assigned_at`` is the time of the actor's last one. ``manually_stopped`` counts the
    workers below ``min_workers`` that a person stopped: they are not replaced. A ``…_sequence`` is
    that of the actor's last event of the kind, 0 if there is none. ``worker_failures`` counts the
    failures since a worker was last ready.
    """

    tenant: str
    actor: Actor
    inbox: InboxState = field(default_factory=InboxState)
    workers: dict[str, Worker] = field(default_factory=dict)
    stale_assignments: dict[str, int] = field(default_factory=dict)
    working_since: dict[str, datetime] = field(default_factory=dict)
    last_assigned_at: datetime = EPOCH
    next_worker_number: int = 0
    manually_stopped: int = 0
    assignment_sequence: int = 0
    state_sequence: int = 0
    worker_failures: int = 0
    worker_failed_at: datetime = EPOCH

    @property
    def key(self) -> ActorKey:
        """The key of the actor in the cluster."""
        return self.tenant, self.actor.actor_id


def without_large_fields(actor: Actor) -> Actor:
    """Return the actor without the fields that no decision depends on and that may be large."""
    definition = replace(actor.definition, description=None, default_environment={})
    return replace(actor, state="", subscriptions={}, definition=definition)


def apply_assignment(state: ActorState, event: ev.ExecutionAssigned, recorded: Recorded) -> None:
    """Apply an assignment of this actor's message to one of its workers."""
    state.assignment_sequence = recorded.sequence
    state.last_assigned_at = recorded.time
    worker = state.workers.get(event.worker_id)
    if not inbox_state.apply_assignment(state.inbox, event):
        if worker is not None and worker.execution_id == event.execution_id:
            state.stale_assignments[event.worker_id] = event.attempt
    elif worker is not None:
        state.working_since.setdefault(event.worker_id, recorded.time)
    else:
        reason = f"worker {event.worker_id} was gone"
        inbox_state.apply_worker_loss(state.inbox, event.worker_id, reason, recorded.id)


def affected_workers(state: ActorState, event: ev.Event) -> list[Worker]:
    """Return the live workers that an event may change: named in it, or running what it names."""
    named = getattr(event, "worker_id", None)
    if named is not None:
        return [state.workers[named]] if named in state.workers else []
    if isinstance(event, ev.ExecutionAbandoned):
        return [w for w in state.workers.values() if w.execution_id == event.execution_id]
    return []


def apply_manual_stop(state: ActorState) -> None:
    """Do not replace a worker that a person stopped, if ``min_workers`` would bring it back."""
    remaining = sum(
        w.revision == state.actor.revision and w.status is not WorkerStatus.STOPPING
        for w in state.workers.values()
    )
    if remaining < state.actor.definition.min_workers - state.manually_stopped:
        state.manually_stopped += 1
