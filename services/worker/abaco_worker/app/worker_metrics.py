"""The metrics of the worker."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import datetime

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, parse_time
from abaco_proto.errors import AbacoError
from abaco_telemetry.instrumented_event_log import LogMetrics
from abaco_telemetry.metric_registry import MetricRegistry
from abaco_worker.sandbox.sandbox_pool import SandboxPool


class WorkerMetrics:
    """All metrics of one worker process."""

    def __init__(self) -> None:
        self.registry = MetricRegistry()
        self.log = LogMetrics(self.registry)
        gauge, counter = self.registry.gauge, self.registry.counter
        histogram = self.registry.histogram
        self.capacity = gauge("abaco_host_capacity", "Slots of this host.")
        self.confinement = gauge(
            "abaco_host_confinement", "Whether the engine confines containers with it.", "by"
        )
        self.workers = gauge("abaco_host_seats", "Slots of this host that workers occupy.")
        self.work_items = gauge(
            "abaco_work_in_hand", "Work items that were received and not yet acknowledged."
        )
        self.deliveries = counter("abaco_deliveries", "Work items that were received.")
        self.redeliveries = counter(
            "abaco_redeliveries", "Work items that were received more than once."
        )
        self.sandboxes = gauge("abaco_sandboxes", "Sandboxes for the next message.", "state")
        self.sandbox_seconds = histogram("abaco_sandbox_seconds", "Time to make a sandbox.")
        self.sandbox_failures = counter(
            "abaco_sandbox_failures", "Sandboxes that could not be made."
        )
        self.garbage = gauge("abaco_sweeper_waiting", "Unused containers that are to be removed.")
        self.accepted_to_taken = histogram(
            "abaco_accepted_to_taken_seconds",
            "From the acceptance of a message until the worker takes it up, by both hosts' clocks.",
        )
        self.taken_to_started = histogram(
            "abaco_taken_to_started_seconds",
            "From taking up a message until its program starts.",
            "start_kind",
        )
        self.runs = histogram("abaco_run_seconds", "From a program's start to its end.")
        self.started_to_recorded = histogram(
            "abaco_started_to_recorded_seconds",
            "From a program's start until its end is in the log.",
        )
        self.starts = counter("abaco_executions_started", "Programs started.", "start_kind")
        self.ends = counter("abaco_executions_finished", "Programs that ended.", "ended_by")
        self.failed = counter("abaco_attempts_failed", "Attempts without a result.")
        self.calls = histogram(
            "abaco_engine_call_seconds", "Duration of calls of the container engine.", "call"
        )
        self.faults = counter(
            "abaco_engine_call_failures",
            "Calls that the container engine refused or did not answer.",
            *("call", "error"),
        )

    @contextmanager
    def measure_call(self, name: str) -> Generator[None, None, None]:
        """Measure a call of the engine, and count it if it fails."""
        try:
            with self.calls.labels(name).time():
                yield
        except AbacoError as error:
            self.faults.labels(name, type(error).__name__).inc()
            raise

    @contextmanager
    def measure_sandbox(self) -> Generator[None, None, None]:
        """Measure the making of a sandbox, and count it if it fails."""
        with self.sandbox_seconds.time(), self.sandbox_failures.count_exceptions(Exception):
            yield

    def delivered(self, *, redelivered: bool) -> None:
        """Count a work item that was received."""
        self.deliveries.inc()
        self.redeliveries.inc(int(redelivered))

    def taken(self, accepted_at: datetime, taken_at: datetime) -> None:
        """Count a message that the worker takes up."""
        if accepted_at != EPOCH:
            self.accepted_to_taken.observe(seconds(accepted_at, taken_at))

    def reported(self, event: ev.Event, now: datetime) -> None:
        """Count an event that was appended."""
        match event:
            case ev.ExecutionStarted():
                self.starts.labels(event.start_kind).inc()
                if event.taken_at:
                    taken, started = parse_time(event.taken_at), parse_time(event.started_at)
                    histogram = self.taken_to_started.labels(event.start_kind)
                    histogram.observe(seconds(taken, started))
            case ev.ExecutionFinished():
                self.ends.labels(event.final_state.ended_by).inc()
                self.runs.observe(event.runtime_ms / 1000)
                if event.final_state.started_at:
                    started = parse_time(event.final_state.started_at)
                    self.started_to_recorded.observe(seconds(started, now))
            case ev.ExecutionFailed():
                self.failed.inc()

    def count_sandboxes(self, pools: Iterable[SandboxPool]) -> None:
        """Set the number of idle sandboxes, and of those that are being made."""
        idle = making = 0
        for pool in pools:
            idle += pool.idle is not None
            making += pool.making
        self.sandboxes.labels("waiting").set(idle)
        self.sandboxes.labels("making").set(making)


def seconds(begin: datetime, end: datetime) -> float:
    """Return the time between two times; 0 if two hosts' clocks differ by more than that."""
    return max(0.0, (end - begin).total_seconds())
