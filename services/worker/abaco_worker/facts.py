"""What the worker says to the log: its events, made of what it was told and what it saw."""

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, parse_time
from abaco_worker.engine import CannotStart, Container, Usage
from abaco_worker.output import Tally
from abaco_worker.sandbox import Order

SHORTEST_MS = 1.0
"""Engines give an end before the start, a millisecond or so, for runs that are as short."""


def ready(request: ev.WorkerRequested, *, image: str, digest: str, location: str) -> ev.WorkerReady:
    """The seat can run a message."""
    return ev.WorkerReady(
        actor_id=request.actor_id,
        worker_id=request.worker_id,
        host_id=request.host_id,
        revision=request.revision,
        image=image,
        image_digest=digest,
        location=location,
    )


def failed(
    wish: ev.WorkerRequested | ev.WorkerStopRequested | ev.ExecutionAssigned,
    *,
    revision: int,
    reason: str,
) -> ev.WorkerFailed:
    """The seat is broken."""
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
    order: Order, container: Container, usage: Usage, output: Tally
) -> ev.ExecutionFinished:
    """The container ran and ended."""
    state = ev.FinalState(
        status=container.status,
        exit_code=container.exit_code,
        oom_killed=container.oom_killed,
        error=container.error,
        started_at=container.started_at,
        finished_at=later(container.started_at, container.finished_at),
    )
    return _finished(order, state, usage, output, runtime_ms(container))


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
