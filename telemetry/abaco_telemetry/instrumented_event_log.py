"""An event log with metrics: duration and conflicts of appends, events that cannot be read."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import cache
from typing import Protocol

from abaco_jetstream.ports import Batch, EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Draft, Expected, Recorded
from abaco_proto.errors import Conflict, Unavailable
from abaco_telemetry.metric_registry import MetricRegistry


class ConnectionStatus(Protocol):
    """The state of a connection; ``reconnects`` counts its reconnects."""

    reconnects: int

    @property
    def connected(self) -> bool:
        """Whether the connection is open now."""
        ...


class LogMetrics:
    """The metrics of the event log that every service has."""

    def __init__(self, registry: MetricRegistry) -> None:
        """Register the metrics."""
        self.appends = registry.histogram(
            "abaco_append_seconds", "Time until the log confirmed an event.", "type"
        )
        self.conflicts = registry.counter(
            "abaco_append_conflicts",
            "Appends refused because another writer appended first.",
            "type",
        )
        self.failures = registry.counter(
            "abaco_append_failures", "Appends that the log did not confirm in time.", "type"
        )
        self.read = registry.counter("abaco_events_read", "Events read from the log.")
        self.unrecognized = registry.counter(
            "abaco_events_unrecognized", "Events read whose type is unknown here."
        )
        registry.gauge(
            "abaco_nats_connected", "1 while there is a connection to NATS."
        ).set_function(lambda: float(self._connection is not None and self._connection.connected))
        registry.collected_counter("abaco_nats_reconnects", "Reconnects to NATS.", self._reconnects)
        self._connection: ConnectionStatus | None = None

    def watch(self, connection: ConnectionStatus) -> None:
        """Report the state of this connection."""
        self._connection = connection

    def count_read(self, events: Sequence[Recorded]) -> None:
        """Count events that were read."""
        self.read.inc(len(events))
        unrecognized = sum(isinstance(recorded.event, ev.Unrecognized) for recorded in events)
        if unrecognized:
            self.unrecognized.inc(unrecognized)

    def _reconnects(self) -> float:
        return self._connection.reconnects if self._connection is not None else 0


class InstrumentedEventLog:
    """Implements :class:`abaco_jetstream.ports.EventLog` with another one, and counts its calls."""

    def __init__(self, log: EventLog, metrics: LogMetrics) -> None:
        """Count the calls to ``log`` in ``metrics``."""
        self._log = log
        self._metrics = metrics
        self._seconds = cache(metrics.appends.labels)

    async def append(self, draft: Draft, *, expected: Expected | None = None) -> int:
        """See :meth:`abaco_jetstream.ports.EventLog.append`."""
        kind = ev.type_of(draft.event)
        try:
            with self._seconds(kind).time():
                return await self._log.append(draft, expected=expected)
        except Conflict:
            self._metrics.conflicts.labels(kind).inc()
            raise
        except Unavailable:
            self._metrics.failures.labels(kind).inc()
            raise

    async def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        """See :meth:`abaco_jetstream.ports.EventLog.read`."""
        events = self._log.read(filters, after=after, since=since, headers_only=headers_only)
        async with aclosing(events) as batches:
            async for batch in batches:
                self._metrics.count_read(batch)
                yield batch

    async def follow(
        self, filters: Sequence[str], *, after: int = 0
    ) -> AsyncGenerator[Batch, None]:
        """See :meth:`abaco_jetstream.ports.EventLog.follow`."""
        async with aclosing(self._log.follow(filters, after=after)) as batches:
            async for batch in batches:
                self._metrics.count_read(batch.events)
                yield batch

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002
        """See :meth:`abaco_jetstream.ports.EventLog.last`."""
        return await self._log.last(filter)

    async def at(self, sequence: int) -> Recorded | None:
        """See :meth:`abaco_jetstream.ports.EventLog.at`."""
        return await self._log.at(sequence)
