"""The event builders: the worker's events, from assignments, containers and launcher reports."""

from datetime import timedelta
from signal import SIGKILL

from msgspec import UNSET
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, format_time, parse_time
from abaco_worker.domain.engine_errors import CannotStart
from abaco_worker.domain.engine_values import Container, ResourceUsage
from abaco_worker.domain.output_counter import OutputCounter
from abaco_worker.domain.run_report import RunReport
from abaco_worker.domain.run_spec import RunSpec
from abaco_worker.domain.sandbox_record import SandboxAssignment

SIGKILL_EXIT_CODE = 128 + SIGKILL
"""The exit code of a container whose process 1 was killed."""

MIN_SANDBOX_RUN_MS = 0.001
"""The shortest duration of a run in a sandbox: the launcher may measure 0."""

MIN_CONTAINER_RUN_MS = 1.0
"""The shortest duration of a run in its own container: the engine may report an end that is a
millisecond before the start."""

_ERRORS = {
    ev.EndedBy.ITSELF: "",
    ev.EndedBy.HALT: "halted by a person",
    ev.EndedBy.MAX_RUN_SECONDS: "ran longer than max_run_seconds",
    ev.EndedBy.MEM_LIMIT: "out of memory: used more than mem_limit",
    ev.EndedBy.MAX_DISK_BYTES: "wrote more than max_disk_bytes",
}


# -- workers


def worker_ready(  # noqa: PLR0913 - all that the event reports
    request: ev.WorkerRequested,
    *,
    image: str,
    digest: str,
    location: str,
    container_id: str | None,
    isolation: ev.Isolation,
    isolation_reason: str,
) -> ev.WorkerReady:
    """The worker can run a message. ``container_id`` is that of its idle sandbox, if it has one.

    ``isolation_reason`` is what messages do not get of what was asked for; empty if they get all.
    """
    return ev.WorkerReady(
        actor_id=request.actor_id,
        worker_id=request.worker_id,
        host_id=request.host_id,
        revision=request.revision,
        image=image,
        image_digest=digest,
        location=location,
        container_id=container_id,
        isolation=isolation,
        isolation_reason=isolation_reason or UNSET,
    )


def worker_failed(
    request: ev.WorkerRequested | ev.WorkerStopRequested,
    *,
    revision: int,
    reason: str,
) -> ev.WorkerFailed:
    """The worker could not be started or stopped."""
    return ev.WorkerFailed(
        actor_id=request.actor_id,
        worker_id=request.worker_id,
        host_id=request.host_id,
        revision=revision,
        reason=reason,
    )


def worker_stopped(request: ev.WorkerStopRequested) -> ev.WorkerStopped:
    """The worker has stopped."""
    return ev.WorkerStopped(
        actor_id=request.actor_id,
        worker_id=request.worker_id,
        host_id=request.host_id,
        reason=request.reason,
    )


# -- runs in a sandbox


def sandbox_run_started(
    run_spec: RunSpec,
    started_ns: int,
    container_id: str,
    digest: str,
    assignment: SandboxAssignment,
) -> ev.ExecutionStarted:
    """The program was started in a sandbox. ``started_ns`` is nanoseconds since 1970."""
    event = run_spec.assignment
    return ev.ExecutionStarted(
        actor_id=event.actor_id,
        execution_id=event.execution_id,
        attempt=event.attempt,
        worker_id=event.worker_id,
        host_id=event.host_id,
        container_id=container_id,
        image_digest=digest,
        start_kind=assignment.start_kind,
        started_at=time_of(started_ns),
        revision=run_spec.revision,
        taken_at=assignment.taken_at,
        state_sequence=assignment.state_sequence,
    )


def sandbox_run_finished(
    run_spec: RunSpec, report: RunReport, by: ev.EndedBy, output: OutputCounter
) -> ev.ExecutionFinished:
    """The program ended in its sandbox, or could not be run there."""
    state = ev.FinalState(
        status="created" if report.error else "exited",
        exit_code=report.shell_exit_code,
        oom_killed=report.out_of_memory,
        error=report.error or _ERRORS[by],
        started_at=time_of(report.started_ns),
        finished_at=time_of(report.ended_ns),
        ended_by=by,
        signal=report.signal,
    )
    written = report.output_bytes + report.dropped_bytes
    usage = ResourceUsage(
        cpu_ns=report.cpu_ns, io_bytes=report.io_bytes + report.network_bytes + written
    )
    runtime = max(MIN_SANDBOX_RUN_MS, (report.ended_ns - report.started_ns) / 1_000_000)
    return replace(
        _finished(run_spec, state, usage, output, runtime),
        memory_bytes=report.memory_bytes,
        network_bytes=report.network_bytes,
        first_output_at=time_of(report.first_output_ns),
    )


def ended_by(report: RunReport, requested: ev.EndedBy) -> ev.EndedBy:
    """Return what ended a run. ``requested`` is why the worker halted it, or ``ITSELF``."""
    if report.timed_out:
        return ev.EndedBy.MAX_RUN_SECONDS
    if report.halted:
        return ev.EndedBy.HALT if requested is ev.EndedBy.ITSELF else requested
    if report.out_of_memory and report.signal == SIGKILL:
        return ev.EndedBy.MEM_LIMIT
    return ev.EndedBy.ITSELF


# -- runs in a container of their own


def container_run_started(
    run_spec: RunSpec, container: Container, digest: str
) -> ev.ExecutionStarted:
    """The run's container was started."""
    event = run_spec.assignment
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
        revision=run_spec.revision,
    )


def container_run_finished(
    run_spec: RunSpec,
    container: Container,
    usage: ResourceUsage,
    output: OutputCounter,
    by: ev.EndedBy = ev.EndedBy.ITSELF,
) -> ev.ExecutionFinished:
    """The run's container exited. ``by`` is why the worker stopped it, or ``ITSELF``."""
    killed_for_memory = container.oom_killed and container.exit_code == SIGKILL_EXIT_CODE
    if by is ev.EndedBy.ITSELF and killed_for_memory:
        by = ev.EndedBy.MEM_LIMIT
    state = ev.FinalState(
        status=container.status,
        exit_code=container.exit_code,
        oom_killed=container.oom_killed,
        error=container.error or _ERRORS[by],
        started_at=container.started_at,
        finished_at=_not_before(container.started_at, container.finished_at),
        ended_by=by,
    )
    total = replace(usage, io_bytes=usage.io_bytes + output.read_bytes)
    return _finished(run_spec, state, total, output, runtime_ms(container))


def container_run_not_started(run_spec: RunSpec, error: CannotStart) -> ev.ExecutionFinished:
    """The image's command cannot be run; this is the execution's result."""
    state = ev.FinalState(status="created", exit_code=error.exit_code, error=str(error))
    return _finished(run_spec, state, ResourceUsage(), OutputCounter(0), 0.0)


def runtime_ms(container: Container) -> float:
    """Return how long an exited container ran, by the engine's clock; never 0."""
    begin, end = parse_time(container.started_at), parse_time(container.finished_at)
    if EPOCH in (begin, end):
        return MIN_CONTAINER_RUN_MS
    return max(MIN_CONTAINER_RUN_MS, (end - begin).total_seconds() * 1000)


def _not_before(begin: str, end: str) -> str:
    """Return the end of a run, or its beginning if the engine reports an earlier end."""
    return end if parse_time(end) > parse_time(begin) else begin


# -- both


def attempt_failed(assignment: ev.ExecutionAssigned, reason: str) -> ev.ExecutionFailed:
    """This attempt has no result, and the image is not the cause."""
    return ev.ExecutionFailed(
        actor_id=assignment.actor_id,
        execution_id=assignment.execution_id,
        attempt=assignment.attempt,
        worker_id=assignment.worker_id,
        host_id=assignment.host_id,
        reason=reason,
    )


def time_of(ns: int) -> str:
    """Return nanoseconds since 1970 as RFC 3339; empty for 0."""
    return format_time(EPOCH + timedelta(microseconds=ns // 1000)) if ns else ""


def _finished(
    run_spec: RunSpec,
    state: ev.FinalState,
    usage: ResourceUsage,
    output: OutputCounter,
    runtime: float,
) -> ev.ExecutionFinished:
    event = run_spec.assignment
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
        log_bytes=output.recorded_bytes,
        log_sha256=output.sha256,
        log_truncated=output.truncated,
    )
