"""The event log, watched: how long appends take, how many conflict, what cannot be read."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import cache
from typing import Protocol

from abaco_jetstream.ports import Batch, EventLog
from abaco_proto import events as ev
from abaco_proto.append_condition import Expected
from abaco_proto.envelope import Draft, Recorded
from abaco_proto.errors import Conflict, Unavailable
from abaco_telemetry.catalogue import Catalogue


class Connected(Protocol):
    """What is asked of the connection; ``generation`` counts how often it was made anew."""

    generation: int

    @property
    def connected(self) -> bool:
        """Whether it is there now."""
        ...


class LogMetrics:
    """What every service counts of its side of the log."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Nothing is counted yet."""
        self.appends = catalogue.histogram(
            "abaco_append_seconds", "Time until an event was in the log.", "type"
        )
        self.conflicts = catalogue.counter(
            "abaco_append_conflicts", "Appends that another writer was faster than.", "type"
        )
        self.failures = catalogue.counter(
            "abaco_append_failures", "Appends that the log did not answer in time.", "type"
        )
        self.read = catalogue.counter("abaco_events_read", "Events read from the log.")
        self.unrecognized = catalogue.counter(
            "abaco_events_unrecognized", "Events read that no type of ours explains."
        )
        catalogue.gauge(
            "abaco_nats_connected", "1 while there is a connection to NATS."
        ).set_function(lambda: float(self._connection is not None and self._connection.connected))
        catalogue.looked_up(
            "abaco_nats_reconnects", "How often the connection to NATS was made anew.", self._anew
        )
        self._connection: Connected | None = None

    def watch(self, connection: Connected) -> None:
        """Tell of this connection from now on."""
        self._connection = connection

    def saw(self, events: Sequence[Recorded]) -> None:
        """Take note of events that were read."""
        self.read.inc(len(events))
        strange = sum(isinstance(recorded.event, ev.Unrecognized) for recorded in events)
        if strange:
            self.unrecognized.inc(strange)

    def _anew(self) -> float:
        return self._connection.generation if self._connection is not None else 0


class WatchedEventLog:
    """Implements :class:`abaco_jetstream.ports.EventLog` by another one, and counts its calls."""

    def __init__(self, log: EventLog, metrics: LogMetrics) -> None:
        """Count in ``metrics`` what is done with ``log``."""
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
                self._metrics.saw(batch)
                yield batch

    async def follow(
        self, filters: Sequence[str], *, after: int = 0
    ) -> AsyncGenerator[Batch, None]:
        """See :meth:`abaco_jetstream.ports.EventLog.follow`."""
        async with aclosing(self._log.follow(filters, after=after)) as batches:
            async for batch in batches:
                self._metrics.saw(batch.events)
                yield batch

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002
        """See :meth:`abaco_jetstream.ports.EventLog.last`."""
        return await self._log.last(filter)

    async def at(self, sequence: int) -> Recorded | None:
        """See :meth:`abaco_jetstream.ports.EventLog.at`."""
        return await self._log.at(sequence)
