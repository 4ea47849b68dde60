"""What the worker counts."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import datetime

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, parse_time
from abaco_proto.errors import AbacoError
from abaco_telemetry.instrumented_event_log import LogMetrics
from abaco_telemetry.metric_registry import MetricRegistry
from abaco_worker.sandbox.sandbox_pool import Stock


class Metrics:
    """All metrics of one worker process."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.registry = MetricRegistry()
        self.log = LogMetrics(self.registry)
        gauge, counter = self.registry.gauge, self.registry.counter
        histogram = self.registry.histogram
        self.capacity = gauge("abaco_host_capacity", "Seats that this host offers.")
        self.confined = gauge(
            "abaco_host_confinement", "Whether the engine confines containers with it.", "by"
        )
        self.seats = gauge("abaco_host_seats", "Seats that are taken on this host.")
        self.in_hand = gauge("abaco_work_in_hand", "Orders taken and not settled.")
        self.deliveries = counter("abaco_deliveries", "Orders that the log handed out.")
        self.redeliveries = counter(
            "abaco_redeliveries", "Those of them that were handed out before."
        )
        self.sandboxes = gauge("abaco_sandboxes", "Sandboxes for the next message.", "state")
        self.made = histogram("abaco_sandbox_seconds", "Time that making a sandbox took.")
        self.not_made = counter("abaco_sandbox_failures", "Sandboxes that could not be made.")
        self.sweeping = gauge("abaco_sweeper_waiting", "Containers that wait to be removed.")
        self.accepted_to_taken = histogram(
            "abaco_accepted_to_taken_seconds",
            "From a message's acceptance until the worker took it, by both clocks.",
        )
        self.taken_to_started = histogram(
            "abaco_taken_to_started_seconds", "Until its program ran.", "start_kind"
        )
        self.runs = histogram("abaco_run_seconds", "From a program's start to its end.")
        self.started_to_recorded = histogram(
            "abaco_started_to_recorded_seconds", "From its start until its end was in the log."
        )
        self.starts = counter("abaco_executions_started", "Programs started.", "start_kind")
        self.ends = counter("abaco_executions_finished", "Programs that ended.", "ended_by")
        self.failed = counter("abaco_attempts_failed", "Attempts that came to nothing.")
        self.calls = histogram(
            "abaco_engine_call_seconds", "Time that the container engine took.", "call"
        )
        self.faults = counter(
            "abaco_engine_call_failures",
            "Calls that it refused or did not answer.",
            *("call", "error"),
        )

    @contextmanager
    def call(self, name: str) -> Generator[None, None, None]:
        """A call of the engine."""
        try:
            with self.calls.labels(name).time():
                yield
        except AbacoError as error:
            self.faults.labels(name, type(error).__name__).inc()
            raise

    @contextmanager
    def making(self) -> Generator[None, None, None]:
        """The making of a sandbox."""
        with self.made.time(), self.not_made.count_exceptions(Exception):
            yield

    def delivered(self, *, again: bool) -> None:
        """An order came."""
        self.deliveries.inc()
        self.redeliveries.inc(int(again))

    def taken(self, accepted_at: datetime, taken_at: datetime) -> None:
        """A message was taken up."""
        if accepted_at != EPOCH:
            self.accepted_to_taken.observe(seconds(accepted_at, taken_at))

    def reported(self, event: ev.Event, now: datetime) -> None:
        """An event is in the log since now."""
        match event:
            case ev.ExecutionStarted():
                self.starts.labels(event.start_kind).inc()
                if event.taken_at:
                    taken, started = parse_time(event.taken_at), parse_time(event.started_at)
                    waited = self.taken_to_started.labels(event.start_kind)
                    waited.observe(seconds(taken, started))
            case ev.ExecutionFinished():
                self.ends.labels(event.final_state.ended_by).inc()
                self.runs.observe(event.runtime_ms / 1000)
                if event.final_state.started_at:
                    started = parse_time(event.final_state.started_at)
                    self.started_to_recorded.observe(seconds(started, now))
            case ev.ExecutionFailed():
                self.failed.inc()

    def count(self, stocks: Iterable[Stock]) -> None:
        """What is in store now."""
        waiting = making = 0
        for stock in stocks:
            waiting += stock.waits is not None
            making += stock.coming
        self.sandboxes.labels("waiting").set(waiting)
        self.sandboxes.labels("making").set(making)


def seconds(begin: datetime, end: datetime) -> float:
    """Between two times; clocks of two machines may say less than none."""
    return max(0.0, (end - begin).total_seconds())
