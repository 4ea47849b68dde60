"""The ports to the log: what a service does with history, whatever stores it.

Adapters: this package (NATS JetStream) and ``tests/fakes.py`` (in memory). Both pass
``tests/contract``.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from abaco_proto.append_condition import Expected
from abaco_proto.envelope import Draft, Recorded
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.output import Output, RecordedOutput


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events in the order of the log, and how many more were waiting when the last was sent."""

    events: Sequence[Recorded]
    pending: int

    @property
    def caught_up(self) -> bool:
        """Whether this batch ended at the head of the log."""
        return self.pending == 0


class EventLog(Protocol):
    """The log of all events.

    A filter is a subject with NATS wildcards. Every method raises
    :class:`~abaco_proto.errors.Unavailable` when the log does not answer in time.
    """

    async def append(self, draft: Draft, *, expected: Expected | None = None) -> int:
        """Append an event and return its sequence.

        Idempotent: a draft that is in the log already gives the sequence it has there.

        Raises:
            Conflict: ``expected`` does not hold, and the event that broke it is not this draft.
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
        """History in batches: all events with a higher sequence than ``after`` that were in the
        log at the call, in order; with ``since`` only those that were stored then or later.

        With ``headers_only`` the bodies stay in the log: each ``event`` is ``Unrecognized``.
        """
        ...

    def follow(self, filters: Sequence[str], *, after: int = 0) -> AsyncGenerator[Batch, None]:
        """History, then life: every event after ``after``, once, in order, without end.

        The first batch comes at once, empty if there is nothing to tell. Interruptions of the
        connection are bridged; the iterator never ends by itself.
        """
        ...

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the word of the field
        """The last event a filter selects."""
        ...

    async def at(self, sequence: int) -> Recorded | None:
        """The event with this sequence."""
        ...


class OutputBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Chunks in order, and how many more were waiting."""

    chunks: Sequence[RecordedOutput]
    pending: int


class OutputLog(Protocol):
    """The stream of container output. A chunk written twice is there once."""

    async def write(self, output: Output) -> None:
        """Store a chunk. Raises ``Unavailable`` when there is no answer in time."""
        ...

    def follow(self, *, after: int = 0) -> AsyncGenerator[OutputBatch, None]:
        """Every chunk after ``after``, without end, as ``EventLog.follow``."""
        ...

    def follow_execution(
        self, tenant: str, actor_id: str, execution_id: str
    ) -> AsyncGenerator[OutputBatch, None]:
        """The chunks of one execution, of all its attempts, from the first on, as ``follow``."""
        ...


WORKING_SECONDS = 2.0
"""How often a queue must hear of what is in hand, lest it hand it out again."""


class Delivery(Protocol):
    """One event handed to a host. It comes back until it is settled."""

    @property
    def recorded(self) -> Recorded:
        """The event."""
        ...

    @property
    def redelivered(self) -> bool:
        """Whether it was handed out before: someone may have begun on it."""
        ...

    async def done(self) -> None:
        """Settle it: it never comes back."""
        ...

    async def working(self) -> None:
        """Say that it is still being worked on."""
        ...

    async def retry(self, delay_seconds: float) -> None:
        """Give it back, to come again after a while."""
        ...


class WorkQueue(Protocol):
    """What is addressed to one host, kept until settled, across restarts of the host."""

    def deliveries(self) -> AsyncGenerator[Delivery, None]:
        """Each event addressed to this host, in order, without end; unsettled ones again."""
        ...


class Heartbeats(Protocol):
    """Signs of life, from the hosts to the scheduler."""

    async def send(self, heartbeat: Heartbeat) -> None:
        """Send one; it is lost when nobody listens."""
        ...

    def listen(self) -> AsyncGenerator[Heartbeat, None]:
        """All heartbeats from now on, without end."""
        ...


class Snapshots(Protocol):
    """The last bytes put under each name, which is a subject token.

    Both methods raise :class:`~abaco_proto.errors.Unavailable` when there is no answer in time, or
    the bytes are more than a message may have.
    """

    async def get(self, name: str) -> bytes | None:
        """What was put last; None when nothing ever was."""
        ...

    async def put(self, name: str, value: bytes) -> None:
        """Put bytes in the place of the last ones: all of them or none."""
        ...
