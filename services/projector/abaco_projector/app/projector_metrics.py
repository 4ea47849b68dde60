"""The projector's metrics."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from abaco_jetstream.ports import EventLog
from abaco_projector.adapters.read_model_store import EVENTS
from abaco_proto.errors import Unavailable
from abaco_proto.names import all_events_filter
from abaco_telemetry.instrumented_event_log import LogMetrics
from abaco_telemetry.metric_registry import COUNT_BUCKETS, MetricRegistry

UNKNOWN = float("nan")


class ProjectorMetrics:
    """All metrics of one projector process; the label ``projection`` is ``events`` or
    ``output``.
    """

    def __init__(self) -> None:
        """Register all metrics in a new catalogue."""
        self.registry = MetricRegistry()
        self.log = LogMetrics(self.registry)
        gauge, counter = self.registry.gauge, self.registry.counter
        self.lag_events = gauge(
            "abaco_projector_lag_events", "Events in the log that are not in the rows."
        )
        self.lag_seconds = gauge(
            "abaco_projector_lag_seconds", "The age of the oldest of these events."
        )
        self.position = gauge(
            "abaco_projection_position",
            "The sequence of the last message in the rows.",
            "projection",
        )
        self.messages = counter(
            "abaco_projection_messages", "Messages that were applied to the rows.", "projection"
        )
        self.refused = counter(
            "abaco_projection_refused",
            "Messages that Postgres refused; they are skipped.",
            "projection",
        )
        self.outages = counter(
            "abaco_projection_outages",
            "Batches that failed because Postgres was unavailable.",
            "projection",
        )
        self.sizes = self.registry.histogram(
            "abaco_projection_batch_messages",
            "Messages in one transaction.",
            "projection",
            buckets=COUNT_BUCKETS,
        )
        self.seconds = self.registry.histogram(
            "abaco_projection_batch_seconds", "Duration of a transaction.", "projection"
        )
        self._positions: dict[str, int] = {}

    def resumed(self, projection: str, after: int) -> None:
        """Set the position of a projection that starts from its checkpoint."""
        self._set_position(projection, after)

    @contextmanager
    def time_batch(self, projection: str) -> Generator[None, None, None]:
        """Measure a transaction, and count it if Postgres is unavailable."""
        outages = self.outages.labels(projection)
        with self.seconds.labels(projection).time(), outages.count_exceptions(Unavailable):
            yield

    def applied(self, projection: str, count: int, last: int) -> None:
        """Count ``count`` messages that are in the rows, up to sequence ``last``."""
        self.messages.labels(projection).inc(count)
        self.sizes.labels(projection).observe(count)
        self._set_position(projection, last)

    async def measure_lag(self, log: EventLog) -> None:
        """Set the lag, from the head of the log; not a number if the log does not answer."""
        lag_events = lag_seconds = UNKNOWN
        position = self._positions.get(EVENTS)
        if position is not None:
            with suppress(Unavailable):
                last = await log.last(all_events_filter())
                lag_events = max(0, last.sequence - position) if last is not None else 0
                first = await log.at(position + 1) if lag_events else None
                waited = datetime.now(UTC) - first.time if first is not None else timedelta()
                lag_seconds = max(0.0, waited.total_seconds())
        self.lag_events.set(lag_events)
        self.lag_seconds.set(lag_seconds)

    def _set_position(self, projection: str, position: int) -> None:
        self._positions[projection] = position
        self.position.labels(projection).set(position)
