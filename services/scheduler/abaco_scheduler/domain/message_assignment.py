"""Message assignment: which worker gets the next message, and which executions end without a run.

Every decision about a message continues the message's chain of subscriptions and its trace.
"""

from collections.abc import Iterator

from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import Expected
from abaco_proto.names import assignments_filter
from abaco_proto.state_keys import WorkerKey
from abaco_proto.worker import Worker
from abaco_scheduler.domain.actor_state import ActorState
from abaco_scheduler.domain.decision import Decision, Now
from abaco_scheduler.domain.inbox_state import ExecutionState, MessageOrigin
from abaco_scheduler.domain.policy import Policy, idle_workers, is_retry_due

# -- assignments ---------------------------------------------------------------------------------


def assignments(
    state: ActorState, stopping: set[WorkerKey], policy: Policy, now: Now
) -> Iterator[Decision]:
    """Assign the next messages, in the inbox's order, to the idle workers.

    ``stopping`` are the keys of workers that another decision of the same plan stops: they get no
    message.
    """
    stateless = state.actor.definition.stateless
    if not state.actor.exists or (state.inbox.running and not stateless):
        return
    idle = (w for w in idle_workers(state) if (state.tenant, w.worker_id) not in stopping)
    for worker, execution in zip(idle, _next_executions(state, policy, now), strict=False):
        yield _assignment(state, execution, worker)
        if not stateless:
            return


def _next_executions(state: ActorState, policy: Policy, now: Now) -> Iterator[ExecutionState]:
    for execution in sorted(state.inbox.retries.values(), key=lambda e: e.ordinal):
        due = is_retry_due(execution, policy, now.time)
        if due and _reason_to_abandon(state, execution, policy) is None:
            yield execution
        elif not state.actor.definition.stateless:
            return
    for ordinal, sequence in enumerate(state.inbox.waiting, state.inbox.first_ordinal):
        if ordinal not in state.inbox.removed:
            yield ExecutionState(ordinal, sequence, causation_id=_received_id(state, ordinal))


def _assignment(state: ActorState, execution: ExecutionState, worker: Worker) -> Decision:
    actor = state.actor
    event = ev.ExecutionAssigned(
        actor_id=actor.actor_id,
        execution_id=names.execution_id(actor.actor_id, execution.ordinal),
        ordinal=execution.ordinal,
        attempt=execution.attempt + 1,
        worker_id=worker.worker_id,
        host_id=worker.host_id,
        message_sequence=execution.message_sequence,
        actor_sequence=actor.definition_sequence,
        state_sequence=state.state_sequence,
    )
    condition = Expected(
        filter=assignments_filter(state.tenant, actor.actor_id), sequence=state.assignment_sequence
    )
    return _decision(state, execution.ordinal, event, execution.causation_id, condition)


# -- executions that end without a run -----------------------------------------------------------


def terminations(state: ActorState, policy: Policy) -> Iterator[Decision]:
    """Abandon the executions that are not tried again, and halt those that must not continue.

    An execution that was assigned after it had ended may run already, so it is halted. So is
    whatever a deleted actor runs; a worker that is down reads the halt from the log when it starts
    again.
    """
    for execution in state.inbox.retries.values():
        reason = _reason_to_abandon(state, execution, policy)
        if reason is not None:
            yield _abandonment(
                state, execution.ordinal, execution.attempt, reason, execution.causation_id
            )
    for worker_id, attempt in state.stale_assignments.items():
        execution_id = state.workers[worker_id].execution_id
        ordinal = names.execution_ordinal(execution_id or "", state.actor.actor_id)
        if ordinal is not None:
            causation_id = f"{execution_id}.assigned.{attempt}"
            yield _abandonment(state, ordinal, attempt, "assigned after its end", causation_id)
            if not state.inbox.is_open(ordinal):
                yield _halt(state, ordinal, causation_id)
    if not state.actor.exists:
        for ordinal, execution in state.inbox.running.items():
            if not execution.halt_requested:
                yield _halt(state, ordinal, f"{state.actor.actor_id}.deleted")


def _reason_to_abandon(state: ActorState, execution: ExecutionState, policy: Policy) -> str | None:
    """Return why an execution in ``retries`` is not tried again; None if it is."""
    if not state.actor.exists:
        return "the actor was deleted"
    if execution.halt_requested:
        return f"halted; {execution.failure_reason}"
    if execution.counted_attempts >= policy.max_attempts:
        return execution.failure_reason
    return None


def _abandonment(
    state: ActorState, ordinal: int, attempts: int, reason: str, causation_id: str
) -> Decision:
    event = ev.ExecutionAbandoned(
        actor_id=state.actor.actor_id,
        execution_id=names.execution_id(state.actor.actor_id, ordinal),
        attempts=attempts,
        reason=reason,
    )
    return _decision(state, ordinal, event, causation_id, None)


def _halt(state: ActorState, ordinal: int, causation_id: str) -> Decision:
    event = ev.ExecutionHaltRequested(
        actor_id=state.actor.actor_id,
        execution_id=names.execution_id(state.actor.actor_id, ordinal),
    )
    return _decision(state, ordinal, event, causation_id, None)


# -- chains and traces ---------------------------------------------------------------------------


def _decision(
    state: ActorState,
    ordinal: int,
    event: ev.Event,
    causation_id: str,
    condition: Expected | None,
) -> Decision:
    received = MessageOrigin(_received_id(state, ordinal), 0)
    origin = state.inbox.origins.get(ordinal) or received
    return Decision(
        tenant=state.tenant,
        event=event,
        causation_id=causation_id,
        correlation_id=origin.correlation_id,
        hops=origin.hops,
        traceparent=origin.traceparent,
        trace_start=origin.received_at,
        expected=condition,
    )


def _received_id(state: ActorState, ordinal: int) -> str:
    """Return the id of the ``message.received`` event of a message."""
    return f"{names.execution_id(state.actor.actor_id, ordinal)}.received"
