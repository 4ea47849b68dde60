"""Events in the course of an execution as sentences. Pure."""

from abaco_proto import events as ev


def sentence(event: ev.Event) -> str:  # noqa: C901, PLR0912 - one sentence a type
    """What happened, in one sentence for a person."""
    match event:
        case ev.MessageReceived():
            return f"The message was accepted as number {event.ordinal}."
        case ev.ExecutionAssigned():
            where = f"worker {event.worker_id} on host {event.host_id}"
            return f"Attempt {event.attempt} was given to {where}."
        case ev.ExecutionStarted():
            return f"The container of attempt {event.attempt} started on host {event.host_id}."
        case ev.ExecutionFinished():
            return f"The container of attempt {event.attempt} ended: {ending(event.final_state)}."
        case ev.ExecutionFailed():
            return f"Attempt {event.attempt} came to nothing: {event.reason}."
        case ev.ExecutionHaltRequested():
            return "It was asked to end, by a person or because its actor was deleted."
        case ev.ExecutionAbandoned():
            return f"It was given up after {event.attempts} attempts: {event.reason}."
        case ev.ExecutionRetryRequested():
            return "A person wanted it to be tried again."
        case ev.InboxPurged():
            return "What waited in the inbox was purged."
        case ev.ActorDeleted():
            return "The actor was deleted."
        case ev.ActorUpdated():
            return f"The actor was updated to {event.definition.image}."
        case ev.WorkerRequested():
            asked = f"Host {event.host_id} was asked for worker {event.worker_id}"
            return f"{asked}: {event.reason}."
        case ev.WorkerReady():
            return f"Worker {event.worker_id} on host {event.host_id} got ready."
        case ev.WorkerFailed():
            failed = f"Worker {event.worker_id} on host {event.host_id} failed"
            return f"{failed}: {event.reason}."
        case ev.WorkerLost():
            return f"Worker {event.worker_id} was lost: {event.reason}."
    return f"{ev.type_of(event)}."


ENDED_BY = {
    ev.EndedBy.HALT: "a person halted it",
    ev.EndedBy.MAX_RUN_SECONDS: "it ran longer than max_run_seconds allows",
    ev.EndedBy.MEM_LIMIT: "it wanted more memory than mem_limit allows",
    ev.EndedBy.MAX_DISK_BYTES: "it wrote more than max_disk_bytes allows",
}


def ending(state: ev.FinalState) -> str:
    """How a run ended."""
    by = ENDED_BY.get(state.ended_by)
    if by is not None:
        return by
    signal = f", by signal {state.signal}" if state.signal else ""
    memory = ", out of memory" if state.oom_killed else ""
    error = f" ({state.error})" if state.error else ""
    return f"exit code {state.exit_code}{signal}{memory}{error}"
