"""What the projector counts."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from abaco_jetstream.ports import EventLog
from abaco_projector.adapters.read_model_store import EVENTS
from abaco_proto.errors import Unavailable
from abaco_proto.subjects import all_events_filter
from abaco_telemetry.catalogue import COUNTS, Catalogue
from abaco_telemetry.event_log import LogMetrics

UNKNOWN = float("nan")


class Metrics:
    """All metrics of one projector process; ``projection`` is ``events`` or ``output``."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.catalogue = Catalogue()
        self.log = LogMetrics(self.catalogue)
        gauge, counter = self.catalogue.gauge, self.catalogue.counter
        self.behind = gauge(
            "abaco_projector_lag_events", "Events in the log that are not in the rows."
        )
        self.late = gauge(
            "abaco_projector_lag_seconds", "How long the first of them has been in the log."
        )
        self.position = gauge(
            "abaco_projection_position", "The last message that is in the rows.", "projection"
        )
        self.messages = counter(
            "abaco_projection_messages", "Messages that were taken into the rows.", "projection"
        )
        self.refused = counter(
            "abaco_projection_refused", "Messages left out: the database took none.", "projection"
        )
        self.outages = counter(
            "abaco_projection_outages", "Batches broken off: the database was away.", "projection"
        )
        self.sizes = self.catalogue.histogram(
            "abaco_projection_batch_messages",
            "Messages in one transaction.",
            "projection",
            borders=COUNTS,
        )
        self.seconds = self.catalogue.histogram(
            "abaco_projection_batch_seconds", "Time that a transaction took.", "projection"
        )
        self._places: dict[str, int] = {}

    def began(self, projection: str, after: int) -> None:
        """A projection goes on from its checkpoint."""
        self._reach(projection, after)

    @contextmanager
    def batch(self, projection: str) -> Generator[None, None, None]:
        """A transaction."""
        outages = self.outages.labels(projection)
        with self.seconds.labels(projection).time(), outages.count_exceptions(Unavailable):
            yield

    def applied(self, projection: str, count: int, last: int) -> None:
        """So many messages are in the rows, up to this one."""
        self.messages.labels(projection).inc(count)
        self.sizes.labels(projection).observe(count)
        self._reach(projection, last)

    async def measure_lag(self, log: EventLog) -> None:
        """Ask the log how far the rows are behind; without an answer that is not known."""
        behind = late = UNKNOWN
        position = self._places.get(EVENTS)
        if position is not None:
            with suppress(Unavailable):
                last = await log.last(all_events_filter())
                behind = max(0, last.sequence - position) if last is not None else 0
                first = await log.at(position + 1) if behind else None
                waited = datetime.now(UTC) - first.time if first is not None else timedelta()
                late = max(0.0, waited.total_seconds())
        self.behind.set(behind)
        self.late.set(late)

    def _reach(self, projection: str, place: int) -> None:
        self._places[projection] = place
        self.position.labels(projection).set(place)
