"""The event log on the stream ``ABACO_EVENTS``."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime

from abaco_jetstream.connection.nats_connection import Connection
from abaco_jetstream.ports import Batch
from abaco_jetstream.push_consumer import MessageBatch, follow
from abaco_jetstream.stored_message import stored_message
from abaco_proto import streams
from abaco_proto.envelope import (
    Draft,
    Expected,
    Recorded,
    decode,
    encode,
    from_message,
    skip_body,
    to_headers,
)
from abaco_proto.errors import Conflict
from abaco_proto.events import Event

EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_FILTER = "Nats-Expected-Last-Subject-Sequence-Subject"


class JetStreamEventLog:
    """Implements :class:`abaco_jetstream.ports.EventLog`."""

    def __init__(self, connection: Connection) -> None:
        """The log behind an open (or opening) connection."""
        self._connection = connection

    async def append(self, draft: Draft, *, expected: Expected | None = None) -> int:
        """See :meth:`abaco_jetstream.ports.EventLog.append`."""
        headers = to_headers(draft)
        if expected is not None:
            headers[EXPECTED_SEQUENCE] = str(expected.sequence)
            headers[EXPECTED_FILTER] = expected.filter
        try:
            answer = await self._connection.request(draft.subject, encode(draft.event), headers)
        except Conflict:
            # An earlier attempt to append this draft may have changed the history.
            return self._sequence_if_own(await self.last(draft.subject), draft)
        if answer.get("duplicate"):
            # Another writer may have appended an event with this id (docs/adr/0002).
            return self._sequence_if_own(await self.at(int(answer["seq"])), draft)
        return int(answer["seq"])

    @staticmethod
    def _sequence_if_own(found: Recorded | None, draft: Draft) -> int:
        if found is not None and found.matches(draft):
            return found.sequence
        raise Conflict(f"{draft.id}: another writer appended first")

    async def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        """See :meth:`abaco_jetstream.ports.EventLog.read`."""
        end = max([await self._end(filter, since) for filter in filters], default=0)  # noqa: A001
        if end <= after:
            return
        batches = self.follow(filters, after=after, since=since, headers_only=headers_only)
        async with aclosing(batches):
            async for batch in batches:
                yield [recorded for recorded in batch.events if recorded.sequence <= end]
                # Do not stop at pending == 0: the consumer's replica may lag behind the leader that
                # named the end.
                if batch.events and batch.events[-1].sequence >= end:
                    return

    async def follow(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Batch, None]:
        """See :meth:`abaco_jetstream.ports.EventLog.follow`; other arguments are as in ``read``."""
        stream, decode_body = streams.EVENTS.name, skip_body if headers_only else decode
        batches = follow(
            self._connection, stream, filters, after=after, since=since, headers_only=headers_only
        )
        async with aclosing(batches):
            async for messages in batches:
                yield _batch(messages, decode_body)

    async def _end(self, filter: str, since: datetime | None) -> int:  # noqa: A002
        """The sequence of the last event, 0 if it was stored before ``since``."""
        if since is None:
            recorded = await self.last(filter)
            return 0 if recorded is None else recorded.sequence
        last = await stored_message(self._connection, streams.EVENTS.name, subject=filter)
        if last is None or last.seq is None or last.time is None or last.time < since:
            return 0
        return last.seq

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002
        """See :meth:`abaco_jetstream.ports.EventLog.last`."""
        return await self._get(subject=filter)

    async def at(self, sequence: int) -> Recorded | None:
        """See :meth:`abaco_jetstream.ports.EventLog.at`.

        Events never change, so any replica may answer, which is faster. The leader is asked only if
        that replica does not have the event yet.
        """
        return await self._get(seq=sequence, direct=True) or await self._get(seq=sequence)

    async def _get(
        self, *, seq: int | None = None, subject: str | None = None, direct: bool = False
    ) -> Recorded | None:
        stream = streams.EVENTS.name
        found = await stored_message(
            self._connection, stream, seq=seq, subject=subject, direct=direct
        )
        if found is None:
            return None
        assert found.seq is not None
        assert found.subject is not None
        return from_message(found.seq, found.subject, found.headers, found.data or b"")


def _batch(messages: MessageBatch, decode_body: Callable[[bytes], Event]) -> Batch:
    events = [
        from_message(m.sequence, m.subject, m.headers, m.body, decode_body) for m in messages.items
    ]
    return Batch(events=events, pending=messages.pending)
