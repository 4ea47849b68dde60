"""What the worker says to the log: its events, made of what it was told and what it saw."""

from datetime import timedelta
from signal import SIGKILL

from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, format_time, parse_time
from abaco_worker.domain.containers import Container, Usage
from abaco_worker.domain.engine_errors import CannotStart
from abaco_worker.domain.output_chunks import Tally
from abaco_worker.domain.run_report import Report
from abaco_worker.domain.run_spec import Order
from abaco_worker.domain.sandbox_record import Taken

KILLED = 128 + SIGKILL
"""The exit code of a container whose first process was killed."""

SHORTEST_LAUNCHED_MS = 0.001
"""The launcher's clock does not go backwards, but a run that could not be takes no time."""

SHORTEST_MS = 1.0
"""Engines give an end before the start, a millisecond or so, for runs that are as short."""


def ready(
    request: ev.WorkerRequested,
    *,
    image: str,
    digest: str,
    location: str,
    container_id: str | None = None,
) -> ev.WorkerReady:
    """The seat can run a message; in the container, if one waits."""
    return ev.WorkerReady(
        actor_id=request.actor_id,
        worker_id=request.worker_id,
        host_id=request.host_id,
        revision=request.revision,
        image=image,
        image_digest=digest,
        location=location,
        container_id=container_id,
    )


def failed(
    wish: ev.WorkerRequested | ev.WorkerStopRequested,
    *,
    revision: int,
    reason: str,
) -> ev.WorkerFailed:
    """The worker could not be made ready, or not be stopped."""
    return ev.WorkerFailed(
        actor_id=wish.actor_id,
        worker_id=wish.worker_id,
        host_id=wish.host_id,
        revision=revision,
        reason=reason,
    )


def stopped(request: ev.WorkerStopRequested) -> ev.WorkerStopped:
    """The seat is given up."""
    return ev.WorkerStopped(
        actor_id=request.actor_id,
        worker_id=request.worker_id,
        host_id=request.host_id,
        reason=request.reason,
    )


def started(order: Order, container: Container, digest: str) -> ev.ExecutionStarted:
    """The container runs."""
    event = order.assignment
    return ev.ExecutionStarted(
        actor_id=event.actor_id,
        execution_id=event.execution_id,
        attempt=event.attempt,
        worker_id=event.worker_id,
        host_id=event.host_id,
        container_id=container.container_id,
        image_digest=digest,
        start_kind=ev.StartKind.COLD,
        started_at=container.started_at,
        revision=order.revision,
    )


def finished(
    order: Order,
    container: Container,
    usage: Usage,
    output: Tally,
    by: ev.EndedBy = ev.EndedBy.ITSELF,
) -> ev.ExecutionFinished:
    """The container ran and ended; ``by`` is why the worker ended it, if it did."""
    if by is ev.EndedBy.ITSELF and container.oom_killed and container.exit_code == KILLED:
        by = ev.EndedBy.MEM_LIMIT
    state = ev.FinalState(
        status=container.status,
        exit_code=container.exit_code,
        oom_killed=container.oom_killed,
        error=container.error or _WORDS[by],
        started_at=container.started_at,
        finished_at=later(container.started_at, container.finished_at),
        ended_by=by,
    )
    whole = replace(usage, io_bytes=usage.io_bytes + output.taken)
    return _finished(order, state, whole, output, runtime_ms(container))


def launched(
    order: Order, started_ns: int, container_id: str, digest: str, taken: Taken
) -> ev.ExecutionStarted:
    """The program runs in a sandbox."""
    event = order.assignment
    return ev.ExecutionStarted(
        actor_id=event.actor_id,
        execution_id=event.execution_id,
        attempt=event.attempt,
        worker_id=event.worker_id,
        host_id=event.host_id,
        container_id=container_id,
        image_digest=digest,
        start_kind=taken.start_kind,
        started_at=time_of(started_ns),
        revision=order.revision,
        taken_at=taken.taken_at,
        state_sequence=taken.state_sequence,
    )


def ended(order: Order, report: Report, by: ev.EndedBy, output: Tally) -> ev.ExecutionFinished:
    """The program ended in its sandbox, or could not be run there."""
    state = ev.FinalState(
        status="created" if report.words else "exited",
        exit_code=report.status,
        oom_killed=report.out_of_memory,
        error=report.words or _WORDS[by],
        started_at=time_of(report.started_ns),
        finished_at=time_of(report.ended_ns),
        ended_by=by,
        signal=report.signal,
    )
    written = report.output_bytes + report.dropped_bytes
    usage = Usage(cpu_ns=report.cpu_ns, io_bytes=report.io_bytes + report.network_bytes + written)
    runtime = max(SHORTEST_LAUNCHED_MS, (report.ended_ns - report.started_ns) / 1_000_000)
    return replace(
        _finished(order, state, usage, output, runtime),
        memory_bytes=report.memory_bytes,
        network_bytes=report.network_bytes,
        first_output_at=time_of(report.first_output_ns),
    )


def ended_by(report: Report, wish: ev.EndedBy) -> ev.EndedBy:
    """What ended a run: ``wish`` is why the worker wanted it to end, if it did."""
    if report.timed_out:
        return ev.EndedBy.MAX_RUN_SECONDS
    if report.halted:
        return ev.EndedBy.HALT if wish is ev.EndedBy.ITSELF else wish
    if report.out_of_memory and report.signal == SIGKILL:
        return ev.EndedBy.MEM_LIMIT
    return ev.EndedBy.ITSELF


_WORDS = {
    ev.EndedBy.ITSELF: "",
    ev.EndedBy.HALT: "halted by a person",
    ev.EndedBy.MAX_RUN_SECONDS: "ran longer than max_run_seconds",
    ev.EndedBy.MEM_LIMIT: "out of memory: used more than mem_limit",
    ev.EndedBy.MAX_DISK_BYTES: "wrote more than max_disk_bytes",
}


def attempt_failed(assignment: ev.ExecutionAssigned, reason: str) -> ev.ExecutionFailed:
    """This attempt came to nothing, through no fault of the image's."""
    return ev.ExecutionFailed(
        actor_id=assignment.actor_id,
        execution_id=assignment.execution_id,
        attempt=assignment.attempt,
        worker_id=assignment.worker_id,
        host_id=assignment.host_id,
        reason=reason,
    )


def time_of(ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339; empty for 0."""
    return format_time(EPOCH + timedelta(microseconds=ns // 1000)) if ns else ""


def never_started(order: Order, refusal: CannotStart) -> ev.ExecutionFinished:
    """The image's command cannot be run: that is the result."""
    state = ev.FinalState(status="created", exit_code=refusal.exit_code, error=str(refusal))
    return _finished(order, state, Usage(), Tally(0), 0.0)


def _finished(
    order: Order, state: ev.FinalState, usage: Usage, output: Tally, runtime: float
) -> ev.ExecutionFinished:
    event = order.assignment
    return ev.ExecutionFinished(
        actor_id=event.actor_id,
        execution_id=event.execution_id,
        attempt=event.attempt,
        worker_id=event.worker_id,
        host_id=event.host_id,
        exit_code=state.exit_code,
        final_state=state,
        cpu_ns=usage.cpu_ns,
        io_bytes=usage.io_bytes,
        runtime_ms=runtime,
        log_bytes=output.recorded,
        log_sha256=output.sha256,
        log_truncated=output.truncated,
    )


def later(begin: str, end: str) -> str:
    """The end of a run, which is not before its beginning whatever the engine says."""
    return end if parse_time(end) > parse_time(begin) else begin


def runtime_ms(container: Container) -> float:
    """How long a container that ended ran, by the engine's clock; never 0."""
    begin, end = parse_time(container.started_at), parse_time(container.finished_at)
    if EPOCH in (begin, end):
        return SHORTEST_MS
    return max(SHORTEST_MS, (end - begin).total_seconds() * 1000)
