"""The messages of one actor, as far as decisions depend on them.

Theory: this is :mod:`abaco_proto.execution` for all messages of one actor at once, without the
fields that no decision needs. The collection that holds a message tells the state of its execution:

===========================  ====================================================================
collection                   state of the execution
===========================  ====================================================================
``waiting``                  SUBMITTED, never tried: only its sequence in the log is kept
``retries``, resubmitted     SUBMITTED again: its attempt failed, or a person retried it
``retries``, all others      ASSIGNED or RUNNING, but its worker no longer exists
``running``                  ASSIGNED or RUNNING, on a live worker
``abandoned``                ERROR after the last attempt: a person may retry it
none                         ended
===========================  ====================================================================

What a purge, a halt or the deletion of the actor does to an execution in ``retries`` depends on
``resubmitted``. Ordinals have no gaps: that of the first waiting message gives all the others.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, Recorded
from abaco_proto.names import execution_ordinal
from abaco_scheduler.domain.abandoned_executions import AbandonedExecutions


@dataclass(slots=True)
class ExecutionState:
    """An execution that was assigned at least once, or is about to be.

    ``attempt`` is the number of the latest attempt, from 1; 0 before the first.
    ``earlier_attempts`` are those before a person's retry: they do not count. ``failure_reason``
    tells why the latest attempt failed, ``causation_id`` is the id of the event that recorded it,
    ``failed_at`` its time.
    """

    ordinal: int
    message_sequence: int
    attempt: int = 0
    earlier_attempts: int = 0
    worker_id: str = ""
    resubmitted: bool = False
    halt_requested: bool = False
    failure_reason: str = ""
    causation_id: str = ""
    failed_at: datetime = EPOCH

    @property
    def counted_attempts(self) -> int:
        """The number of attempts since the message was sent or a person last retried it."""
        return self.attempt - self.earlier_attempts


@dataclass(slots=True, frozen=True)
class MessageOrigin:
    """The chain of subscriptions that produced a message, and the trace of its sender.

    ``hops`` is the number of subscriptions in the chain; ``received_at`` is when the API accepted
    the message, where it is known.
    """

    correlation_id: str
    hops: int
    traceparent: str | None = None
    received_at: datetime | None = None


@dataclass(slots=True)
class InboxState:
    """The messages of one actor.

    ``waiting`` has the sequences of the messages in the queue, ``first_ordinal`` is the ordinal
    of the first, and ``removed`` are the ordinals in it that no longer wait. ``origins`` has an
    entry only for a message that a subscription produced or that is traced, so that any other
    waiting message costs no more than its sequence.
    """

    waiting: deque[int] = field(default_factory=deque)
    first_ordinal: int = 0
    removed: set[int] = field(default_factory=set)
    running: dict[int, ExecutionState] = field(default_factory=dict)
    retries: dict[int, ExecutionState] = field(default_factory=dict)
    abandoned: AbandonedExecutions = field(default_factory=AbandonedExecutions)
    origins: dict[int, MessageOrigin] = field(default_factory=dict)

    @property
    def backlog(self) -> int:
        """The number of messages that no live worker has."""
        return len(self.waiting) - len(self.removed) + len(self.retries)

    def is_waiting(self, ordinal: int) -> bool:
        """Return whether a message is in the queue."""
        end = self.first_ordinal + len(self.waiting)
        return self.first_ordinal <= ordinal < end and ordinal not in self.removed

    def is_open(self, ordinal: int) -> bool:
        """Return whether a message has not ended: it waits, runs or can be tried again."""
        if ordinal in self.running or ordinal in self.retries or ordinal in self.abandoned:
            return True
        return self.is_waiting(ordinal)


# -- events --------------------------------------------------------------------------------------


def apply_event(inbox: InboxState, recorded: Recorded, *, actor_exists: bool) -> None:
    """Apply an event of this actor. Any event is accepted; one that does not fit is ignored."""
    event = recorded.event
    match event:
        case ev.MessageReceived() if actor_exists:
            _apply_received(inbox, event, recorded)
        case ev.InboxPurged():
            _apply_purge(inbox, event.up_to_ordinal)
        case ev.ActorDeleted():
            _apply_deletion(inbox)
        case (
            ev.ExecutionHaltRequested()
            | ev.ExecutionFinished()
            | ev.ExecutionFailed()
            | ev.ExecutionAbandoned()
            | ev.ExecutionRetryRequested()
        ):
            ordinal = execution_ordinal(event.execution_id, event.actor_id)
            if ordinal is not None:
                _apply_to_execution(inbox, ordinal, recorded, actor_exists=actor_exists)


def _apply_to_execution(
    inbox: InboxState, ordinal: int, recorded: Recorded, *, actor_exists: bool
) -> None:
    match recorded.event:
        case ev.ExecutionHaltRequested():
            _apply_halt_request(inbox, ordinal)
        case ev.ExecutionFinished() as event:
            if _execution_of_attempt(inbox, ordinal, event.attempt) is not None:
                _remove_execution(inbox, ordinal)
        case ev.ExecutionFailed() as event:
            _apply_failure(inbox, ordinal, event, recorded, actor_exists=actor_exists)
        case ev.ExecutionAbandoned():
            _apply_abandonment(inbox, ordinal, actor_exists=actor_exists)
        case ev.ExecutionRetryRequested():
            _apply_retry_request(inbox, ordinal, recorded)


def apply_assignment(inbox: InboxState, event: ev.ExecutionAssigned) -> bool:
    """Apply an assignment; return False if its message is unknown, has ended or is newer."""
    ordinal = event.ordinal
    if inbox.is_waiting(ordinal):
        execution = ExecutionState(ordinal, _take_waiting(inbox, ordinal))
    else:
        found = inbox.retries.get(ordinal) or inbox.running.get(ordinal)
        if found is None or event.attempt <= found.attempt:
            return False
        execution = found
    inbox.retries.pop(ordinal, None)
    inbox.running[ordinal] = execution
    execution.attempt, execution.worker_id = event.attempt, event.worker_id
    execution.resubmitted = False
    return True


def apply_worker_loss(inbox: InboxState, worker_id: str, reason: str, causation_id: str) -> None:
    """Move the executions of a worker that no longer exists to ``retries``."""
    for ordinal in [o for o, found in inbox.running.items() if found.worker_id == worker_id]:
        execution = inbox.running.pop(ordinal)
        execution.failure_reason, execution.causation_id = reason, causation_id
        execution.failed_at = EPOCH
        inbox.retries[ordinal] = execution


def _apply_received(inbox: InboxState, event: ev.MessageReceived, recorded: Recorded) -> None:
    if event.ordinal == inbox.first_ordinal + len(inbox.waiting):
        inbox.waiting.append(recorded.sequence)
        if recorded.hops or recorded.traceparent:
            inbox.origins[event.ordinal] = MessageOrigin(
                recorded.correlation_id, recorded.hops, recorded.traceparent, recorded.time
            )


def _apply_purge(inbox: InboxState, up_to_ordinal: int) -> None:
    while inbox.waiting and inbox.first_ordinal <= up_to_ordinal:
        inbox.origins.pop(inbox.first_ordinal, None)
        _drop_first(inbox)
    _drop_resubmitted(inbox, up_to_ordinal)


def _apply_deletion(inbox: InboxState) -> None:
    inbox.waiting.clear()
    inbox.removed.clear()
    inbox.abandoned.clear()
    _drop_resubmitted(inbox)


def _drop_resubmitted(inbox: InboxState, up_to_ordinal: int | None = None) -> None:
    for ordinal, execution in list(inbox.retries.items()):
        if execution.resubmitted and (up_to_ordinal is None or ordinal <= up_to_ordinal):
            _remove_execution(inbox, ordinal)


def _apply_halt_request(inbox: InboxState, ordinal: int) -> None:
    execution = inbox.running.get(ordinal) or inbox.retries.get(ordinal)
    if inbox.is_waiting(ordinal):
        _take_waiting(inbox, ordinal)
        _remove_execution(inbox, ordinal)
    elif execution is not None and execution.resubmitted:
        _remove_execution(inbox, ordinal)
    elif execution is not None:
        execution.halt_requested = True


def _apply_failure(
    inbox: InboxState,
    ordinal: int,
    event: ev.ExecutionFailed,
    recorded: Recorded,
    *,
    actor_exists: bool,
) -> None:
    execution = _execution_of_attempt(inbox, ordinal, event.attempt)
    if execution is None:
        return
    if execution.halt_requested or not actor_exists:
        _remove_execution(inbox, ordinal)
        return
    inbox.running.pop(ordinal, None)
    inbox.retries[ordinal] = execution
    execution.resubmitted, execution.failure_reason = True, event.reason
    execution.causation_id, execution.failed_at = recorded.id, recorded.time


def _apply_abandonment(inbox: InboxState, ordinal: int, *, actor_exists: bool) -> None:
    if inbox.is_waiting(ordinal):
        execution: ExecutionState | None = ExecutionState(ordinal, _take_waiting(inbox, ordinal))
    else:
        execution = inbox.running.pop(ordinal, None) or inbox.retries.pop(ordinal, None)
    if execution is None:
        return
    if execution.halt_requested or not actor_exists:
        _remove_execution(inbox, ordinal)
    else:
        inbox.abandoned.add(ordinal, execution.message_sequence, execution.attempt)
        _drop_trace(inbox, ordinal)


def _apply_retry_request(inbox: InboxState, ordinal: int, recorded: Recorded) -> None:
    found = inbox.abandoned.pop(ordinal)
    if found is not None:
        sequence, attempts = found
        inbox.retries[ordinal] = ExecutionState(
            ordinal,
            sequence,
            attempt=attempts,
            earlier_attempts=attempts,
            resubmitted=True,
            causation_id=recorded.id,
        )


# -- bookkeeping ---------------------------------------------------------------------------------


def _execution_of_attempt(inbox: InboxState, ordinal: int, attempt: int) -> ExecutionState | None:
    """Return the execution that a report is about; None if another attempt is the current one."""
    execution = inbox.running.get(ordinal) or inbox.retries.get(ordinal)
    if execution is None or execution.resubmitted or execution.attempt != attempt:
        return None
    return execution


def _take_waiting(inbox: InboxState, ordinal: int) -> int:
    """Take a message out of the queue; return its sequence in the log."""
    sequence = inbox.waiting[ordinal - inbox.first_ordinal]
    inbox.removed.add(ordinal)
    while inbox.first_ordinal in inbox.removed:
        _drop_first(inbox)
    return sequence


def _drop_first(inbox: InboxState) -> None:
    inbox.removed.discard(inbox.first_ordinal)
    inbox.waiting.popleft()
    inbox.first_ordinal += 1


def _drop_trace(inbox: InboxState, ordinal: int) -> None:
    """Keep only the chain of subscriptions: the trace ends when an execution is abandoned."""
    origin = inbox.origins.pop(ordinal, None)
    if origin is not None and origin.hops:
        inbox.origins[ordinal] = MessageOrigin(origin.correlation_id, origin.hops)


def _remove_execution(inbox: InboxState, ordinal: int) -> None:
    inbox.running.pop(ordinal, None)
    inbox.retries.pop(ordinal, None)
    inbox.origins.pop(ordinal, None)
