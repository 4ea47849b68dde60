"""The ports of the log: what a service needs, whatever stores the events.

Adapters are in this package (NATS JetStream) and in ``fakes.py`` of the tests (in memory). Both
pass the suites in ``tests/contract``.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from abaco_proto.envelope import Draft, Expected, Recorded
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.output import Output, RecordedOutput


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events in the order of the log, and how many more were pending when the last was sent."""

    events: Sequence[Recorded]
    pending: int

    @property
    def caught_up(self) -> bool:
        """Whether this batch ends at the head of the log."""
        return self.pending == 0


class EventLog(Protocol):
    """The log of all events.

    A filter is a subject with NATS wildcards. Every method raises
    :class:`~abaco_proto.errors.Unavailable` when the log does not answer in time.
    """

    async def append(self, draft: Draft, *, expected: Expected | None = None) -> int:
        """Append an event and return its sequence.

        Idempotent: if the draft is in the log already, its sequence is returned.

        Raises:
            Conflict: ``expected`` does not hold, and the newer event is not this draft.
            Unavailable: no answer in time; the event may or may not be in the log.
        """
        ...

    def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        """The events after the sequence ``after`` that are in the log now, in order, in batches.

        ``since`` leaves out events that were stored before. With ``headers_only`` the bodies are
        not read: each ``event`` is ``Unrecognized``.
        """
        ...

    def follow(self, filters: Sequence[str], *, after: int = 0) -> AsyncGenerator[Batch, None]:
        """Every event after the sequence ``after``, once, in order, past and future.

        The first batch comes at once, empty if there are no events. The iterator continues after
        interruptions of the connection, and never ends by itself.
        """
        ...

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the name in NATS
        """The last event that matches a filter; None if there is none."""
        ...

    async def at(self, sequence: int) -> Recorded | None:
        """The event with this sequence; None if there is none."""
        ...


class OutputBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Chunks in order, and how many more were pending."""

    chunks: Sequence[RecordedOutput]
    pending: int


class OutputLog(Protocol):
    """The stream of container output. A chunk that is written twice is stored once."""

    async def write(self, output: Output) -> None:
        """Store a chunk. Raises ``Unavailable`` if there is no answer in time."""
        ...

    def follow(self, *, after: int = 0) -> AsyncGenerator[OutputBatch, None]:
        """Every chunk after the sequence ``after``, without end, as ``EventLog.follow``."""
        ...

    def follow_execution(
        self, tenant: str, actor_id: str, execution_id: str
    ) -> AsyncGenerator[OutputBatch, None]:
        """The chunks of all attempts of one execution, from the first, as ``follow``."""
        ...


WORKING_SECONDS = 2.0
"""How often a delivery in progress is reported, so that it is not delivered again."""


class Delivery(Protocol):
    """One event for a host. It is delivered again until it is acknowledged."""

    @property
    def recorded(self) -> Recorded:
        """The event."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before, so that its work may have begun."""
        ...

    async def done(self) -> None:
        """Acknowledge it: it is not delivered again."""
        ...

    async def working(self) -> None:
        """Report that it is in progress."""
        ...

    async def retry(self, delay_seconds: float) -> None:
        """Return it, to be delivered again after a delay."""
        ...


class WorkQueue(Protocol):
    """The events for one host, kept until they are acknowledged, across its restarts."""

    def deliveries(self) -> AsyncGenerator[Delivery, None]:
        """Each event for this host, in order, without end; again if it is not acknowledged."""
        ...


class Heartbeats(Protocol):
    """Heartbeats of the hosts, for the scheduler."""

    async def send(self, heartbeat: Heartbeat) -> None:
        """Send one. It is not stored: without a receiver it is lost."""
        ...

    def listen(self) -> AsyncGenerator[Heartbeat, None]:
        """All heartbeats from now on, without end."""
        ...


class Snapshots(Protocol):
    """The last value of each name. A name is a token of a subject.

    Both methods raise :class:`~abaco_proto.errors.Unavailable` if there is no answer in time, or
    the value is larger than a message may be.
    """

    async def get(self, name: str) -> bytes | None:
        """The last value; None if there is none."""
        ...

    async def put(self, name: str, value: bytes) -> None:
        """Replace the value, completely or not at all."""
        ...
