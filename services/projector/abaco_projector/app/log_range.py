"""A range of the log, checked to be complete: sequences have no gaps."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from abaco_jetstream.ports import Batch
from abaco_projector.domain.history_difference import ended_early, gap
from abaco_proto.envelope import Recorded
from abaco_proto.names import all_events_filter


class ReadableLog(Protocol):
    """The methods of :class:`abaco_jetstream.ports.EventLog` that reading the whole log needs."""

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the port's name
        """See the port."""
        ...

    def follow(self, filters: Sequence[str], *, after: int = 0) -> AsyncGenerator[Batch, None]:
        """See the port."""
        ...


async def read_head(log: ReadableLog) -> int:
    """Return the sequence of the last event; 0 if there is none."""
    last = await log.last(all_events_filter())
    return 0 if last is None else last.sequence


async def read_range(
    log: ReadableLog, *, after: int, until: int
) -> AsyncGenerator[Sequence[Recorded], None]:
    """Yield the events after ``after`` up to ``until``, in batches.

    Raises:
        Difference: an event is missing, or the log ends earlier.
    """
    if after >= until:
        return
    head = await read_head(log)
    if head < until:
        raise ended_early(head, until)
    async with aclosing(log.follow([all_events_filter()], after=after)) as batches:
        async for batch in batches:
            for recorded in batch.events:
                if recorded.sequence != after + 1:
                    raise gap(after, recorded.sequence)
                after = recorded.sequence
                if after == until:
                    break
            kept = [recorded for recorded in batch.events if recorded.sequence <= until]
            if kept:
                yield kept
            if after == until:
                return
