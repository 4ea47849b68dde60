"""The execution: one run of one message.

An accepted message waits (SUBMITTED), is assigned to a worker (ASSIGNED), runs (RUNNING) and ends.
Only the latest attempt counts: an event of an attempt before the latest assignment changes nothing.
After a failed attempt the execution waits for the next one; when no attempts are left it is
abandoned (ERROR), until a client retries it. A waiting execution is ended by a halt, a purge of the
inbox, or the deletion of its actor. A running one is ended by its worker, and is HALTED if a halt
was requested.
"""

from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, parse_time

# -- state ---------------------------------------------------------------------------------------


class ExecutionStatus(StrEnum):
    """The status of an execution."""

    __hash__ = str.__hash__  # the fast hash: every event looks up the table

    UNKNOWN = "UNKNOWN"
    SUBMITTED = "SUBMITTED"
    ASSIGNED = "ASSIGNED"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    ERROR = "ERROR"
    HALTED = "HALTED"
    PURGED = "PURGED"


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """The fold of an execution's history. A time is None before it.

    ``started_sequence`` is that of the event that started the latest attempt, ``ended_sequence``
    that of the event that ended the execution; 0 before it.
    """

    execution_id: str = ""
    actor_id: str = ""
    ordinal: int = 0
    status: ExecutionStatus = ExecutionStatus.UNKNOWN
    status_message: str = ""
    attempt: int = 0
    halt_requested: bool = False
    message_sequence: int = 0
    worker_id: str | None = None
    host_id: str | None = None
    container_id: str | None = None
    image_digest: str | None = None
    start_kind: ev.StartKind | None = None
    exit_code: int | None = None
    final_state: ev.FinalState | None = None
    cpu_ns: int = 0
    io_bytes: int = 0
    runtime_ms: float = 0.0
    log_bytes: int = 0
    log_sha256: str = ""
    log_truncated: bool = False
    memory_bytes: int = 0
    network_bytes: int = 0
    state_sequence: int = 0
    actor_sequence: int = 0
    rerun_of: str | None = None
    message_received_at: datetime | None = None
    taken_at: datetime | None = None
    started_at: datetime | None = None
    first_output_at: datetime | None = None
    finished_at: datetime | None = None
    recorded_at: datetime | None = None
    started_sequence: int = 0
    ended_sequence: int = 0

    @property
    def ended(self) -> bool:
        """Whether it has ended; only a retry request continues it."""
        return self.status in ENDED


INITIAL = Execution()

_N, _S, _A = ExecutionStatus.UNKNOWN, ExecutionStatus.SUBMITTED, ExecutionStatus.ASSIGNED
_R, _C, _E = ExecutionStatus.RUNNING, ExecutionStatus.COMPLETE, ExecutionStatus.ERROR
_H, _P = ExecutionStatus.HALTED, ExecutionStatus.PURGED

ENDED = frozenset({_C, _E, _H, _P})

# -- transitions ---------------------------------------------------------------------------------

HALTED = "execution.halted"
"""The end, or the failure, of a run whose halt was requested."""

TRANSITIONS: dict[tuple[ExecutionStatus, str], ExecutionStatus] = {
    (_N, "message.received"): _S,
    (_S, "execution.assigned"): _A,
    (_A, "execution.assigned"): _A,
    (_R, "execution.assigned"): _A,
    (_A, "execution.started"): _R,
    (_A, "execution.finished"): _C,
    (_R, "execution.finished"): _C,
    (_A, "execution.failed"): _S,
    (_R, "execution.failed"): _S,
    (_A, HALTED): _H,
    (_R, HALTED): _H,
    (_E, "execution.retry_requested"): _S,
    (_S, "execution.abandoned"): _E,
    (_A, "execution.abandoned"): _E,
    (_R, "execution.abandoned"): _E,
    (_S, "execution.halt_requested"): _H,
    (_A, "execution.halt_requested"): _A,
    (_R, "execution.halt_requested"): _R,
    (_S, "inbox.purged"): _P,
    (_S, "actor.deleted"): _P,
}
"""An event that is not in the table changes nothing."""

# -- fold ----------------------------------------------------------------------------------------


def evolve(execution: Execution, recorded: Recorded) -> Execution:
    """The execution after one more event. Never raises; an event that does not apply is ignored."""
    event = recorded.event
    status = TRANSITIONS.get((execution.status, _signal(execution, event)))
    if status is None or not _concerns(execution, event):
        return execution
    match event:
        case ev.MessageReceived():
            return _received(event, recorded)
        case ev.ExecutionAssigned():
            return _assigned(execution, event)
        case ev.ExecutionStarted():
            return _started(execution, event, recorded)
        case ev.ExecutionFinished():
            return _finished(execution, status, event, recorded)
        case _ if status in ENDED:
            return _ended(execution, status, _reason(event), recorded)
        case ev.ExecutionHaltRequested():
            return replace(execution, halt_requested=True)
    return _waiting(execution, _reason(event))


_HALT = ev.EndedBy.HALT
_ENDINGS = frozenset({ev.ExecutionFinished, ev.ExecutionFailed, ev.ExecutionAbandoned})
"""Events whose key in the table is not always their type."""


def _signal(execution: Execution, event: ev.Event) -> str:
    """The key of an event in the table."""
    if type(event) not in _ENDINGS:
        return ev.type_of(event)
    match event:
        case ev.ExecutionFinished() if event.final_state.ended_by is _HALT:
            return HALTED
        case ev.ExecutionFailed() | ev.ExecutionAbandoned() if execution.halt_requested:
            return HALTED
    return ev.type_of(event)


def _concerns(execution: Execution, event: ev.Event) -> bool:
    """Whether the event is about this execution, and of its latest attempt."""
    match event:
        case ev.MessageReceived():
            return True
        case ev.ExecutionAssigned():
            later = event.attempt > execution.attempt
            return event.execution_id == execution.execution_id and later
        case ev.ExecutionStarted() | ev.ExecutionFinished() | ev.ExecutionFailed():
            current = event.attempt == execution.attempt
            return event.execution_id == execution.execution_id and current
        case ev.ExecutionAbandoned() | ev.ExecutionHaltRequested() | ev.ExecutionRetryRequested():
            return event.execution_id == execution.execution_id
        case ev.InboxPurged():
            covered = execution.ordinal <= event.up_to_ordinal
            return event.actor_id == execution.actor_id and covered
        case ev.ActorDeleted():
            return event.actor_id == execution.actor_id
    return True


def _received(event: ev.MessageReceived, recorded: Recorded) -> Execution:
    return Execution(
        execution_id=event.execution_id,
        actor_id=event.actor_id,
        ordinal=event.ordinal,
        status=_S,
        message_sequence=recorded.sequence,
        rerun_of=event.rerun.execution_id if event.rerun is not None else None,
        message_received_at=recorded.time,
    )


def _assigned(execution: Execution, event: ev.ExecutionAssigned) -> Execution:
    return replace(
        execution,
        status=_A,
        attempt=event.attempt,
        worker_id=event.worker_id,
        host_id=event.host_id,
        actor_sequence=event.actor_sequence,
        status_message="",
        container_id=None,
        start_kind=None,
        taken_at=None,
        started_at=None,
        started_sequence=0,
    )


def _started(execution: Execution, event: ev.ExecutionStarted, recorded: Recorded) -> Execution:
    return replace(
        execution,
        status=_R,
        container_id=event.container_id,
        image_digest=event.image_digest,
        start_kind=event.start_kind,
        state_sequence=event.state_sequence,
        taken_at=parse_time(event.taken_at) if event.taken_at else None,
        started_at=parse_time(event.started_at),
        started_sequence=recorded.sequence,
    )


def _finished(
    execution: Execution,
    status: ExecutionStatus,
    event: ev.ExecutionFinished,
    recorded: Recorded,
) -> Execution:
    state = event.final_state
    return replace(
        execution,
        status=status,
        status_message=state.error,
        exit_code=event.exit_code,
        final_state=state,
        cpu_ns=event.cpu_ns,
        io_bytes=event.io_bytes,
        runtime_ms=event.runtime_ms,
        log_bytes=event.log_bytes,
        log_sha256=event.log_sha256,
        log_truncated=event.log_truncated,
        memory_bytes=event.memory_bytes,
        network_bytes=event.network_bytes,
        first_output_at=parse_time(event.first_output_at) if event.first_output_at else None,
        finished_at=parse_time(state.finished_at) if state.finished_at else recorded.time,
        recorded_at=recorded.time,
        ended_sequence=recorded.sequence,
    )


def _waiting(execution: Execution, reason: str) -> Execution:
    return replace(
        execution,
        status=_S,
        status_message=reason,
        finished_at=None,
        recorded_at=None,
        ended_sequence=0,
    )


def _reason(event: ev.Event) -> str:
    """The status message for an end without a run, or for a failed attempt."""
    match event:
        case ev.ExecutionHaltRequested():
            return "halted before it ran"
        case ev.InboxPurged():
            return "purged from the inbox"
        case ev.ActorDeleted():
            return "the actor was deleted"
        case ev.ExecutionFailed() | ev.ExecutionAbandoned():
            return event.reason
    return ""


def _ended(
    execution: Execution, status: ExecutionStatus, reason: str, recorded: Recorded
) -> Execution:
    return replace(
        execution,
        status=status,
        status_message=reason,
        finished_at=recorded.time,
        recorded_at=recorded.time,
        ended_sequence=recorded.sequence,
    )
