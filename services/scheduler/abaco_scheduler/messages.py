"""Messages: which worker gets the next one, and which executions end without a run."""

from collections.abc import Iterator

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.log import Expected
from abaco_proto.subjects import assignments_filter
from abaco_proto.worker import Worker
from abaco_scheduler.cluster import Desk
from abaco_scheduler.decision import Decision, Now
from abaco_scheduler.inbox import Chain, Task
from abaco_scheduler.policy import Policy, idle_workers, is_due

# -- assignments ---------------------------------------------------------------------------------


def assignments(desk: Desk, leaving: set[str], policy: Policy, now: Now) -> Iterator[Decision]:
    """The next messages to the idle workers, but those that are leaving, in the inbox's order."""
    stateless = desk.actor.definition.stateless
    if not desk.actor.exists or (desk.inbox.running and not stateless):
        return
    idle = (w for w in idle_workers(desk) if w.worker_id not in leaving)
    for worker, task in zip(idle, _next_tasks(desk, policy, now), strict=False):
        yield _assignment(desk, task, worker)
        if not stateless:
            return


def _next_tasks(desk: Desk, policy: Policy, now: Now) -> Iterator[Task]:
    for task in sorted(desk.inbox.retries.values(), key=lambda task: task.ordinal):
        due = is_due(task, policy, now.time)
        if due and _verdict(desk, task, policy) is None:
            yield task
        elif not desk.actor.definition.stateless:
            return
    for ordinal, sequence in enumerate(desk.inbox.waiting, desk.inbox.next_ordinal):
        if ordinal not in desk.inbox.gone:
            yield Task(ordinal, sequence, cause=_received(desk, ordinal))


def _assignment(desk: Desk, task: Task, worker: Worker) -> Decision:
    actor = desk.actor
    event = ev.ExecutionAssigned(
        actor_id=actor.actor_id,
        execution_id=ids.execution_id(actor.actor_id, task.ordinal),
        ordinal=task.ordinal,
        attempt=task.attempt + 1,
        worker_id=worker.worker_id,
        host_id=worker.host_id,
        message_sequence=task.message_sequence,
        actor_sequence=actor.definition_sequence,
        state_sequence=desk.state_sequence,
    )
    condition = Expected(
        filter=assignments_filter(desk.tenant, actor.actor_id), sequence=desk.assigned_sequence
    )
    return _decision(desk, task.ordinal, event, task.cause, condition)


# -- ends ----------------------------------------------------------------------------------------


def endings(desk: Desk, policy: Policy) -> Iterator[Decision]:
    """The executions that are not tried again, and those that must not go on.

    A worker that was given an execution after its end may run it already: it is told to halt it.
    What a deleted actor runs is halted, too; the worker that has it may be down and learns of it
    from the log when it is back.
    """
    for task in desk.inbox.retries.values():
        reason = _verdict(desk, task, policy)
        if reason is not None:
            yield _abandonment(desk, task.ordinal, task.attempt, reason, task.cause)
    for worker_id, attempt in desk.late.items():
        execution_id = desk.workers[worker_id].execution_id
        ordinal = ids.execution_ordinal(execution_id or "", desk.actor.actor_id)
        if ordinal is not None:
            cause = f"{execution_id}.assigned.{attempt}"
            yield _abandonment(desk, ordinal, attempt, "assigned after its end", cause)
            if not desk.inbox.knows(ordinal):
                yield _halt(desk, ordinal, cause)
    if not desk.actor.exists:
        for ordinal, task in desk.inbox.running.items():
            if not task.halted:
                yield _halt(desk, ordinal, f"{desk.actor.actor_id}.deleted")


def _verdict(desk: Desk, task: Task, policy: Policy) -> str | None:
    """Why a message that was tried is not tried again; None when it is."""
    if not desk.actor.exists:
        return "the actor was deleted"
    if task.halted:
        return f"halted; {task.reason}"
    return task.reason if task.tries >= policy.max_attempts else None


def _abandonment(desk: Desk, ordinal: int, attempts: int, reason: str, cause: str) -> Decision:
    event = ev.ExecutionAbandoned(
        actor_id=desk.actor.actor_id,
        execution_id=ids.execution_id(desk.actor.actor_id, ordinal),
        attempts=attempts,
        reason=reason,
    )
    return _decision(desk, ordinal, event, cause, None)


def _halt(desk: Desk, ordinal: int, cause: str) -> Decision:
    event = ev.ExecutionHaltRequested(
        actor_id=desk.actor.actor_id,
        execution_id=ids.execution_id(desk.actor.actor_id, ordinal),
    )
    return _decision(desk, ordinal, event, cause, None)


# -- chains --------------------------------------------------------------------------------------


def _decision(
    desk: Desk, ordinal: int, event: ev.Event, cause: str, condition: Expected | None
) -> Decision:
    """A decision about a message goes on with the chain that the message stands in."""
    chain = desk.inbox.chains.get(ordinal) or Chain(_received(desk, ordinal), 0)
    return Decision(
        tenant=desk.tenant,
        event=event,
        causation_id=cause,
        correlation_id=chain.correlation_id,
        hops=chain.hops,
        traceparent=chain.traceparent,
        since=chain.received_at,
        expected=condition,
    )


def _received(desk: Desk, ordinal: int) -> str:
    """The id of the event that brought a message."""
    return f"{ids.execution_id(desk.actor.actor_id, ordinal)}.received"
