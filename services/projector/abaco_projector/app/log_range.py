"""A stretch of the log, complete or not at all: its sequences have no gaps."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from abaco_jetstream.ports import Batch
from abaco_projector.domain.history_difference import ended_early, gap
from abaco_proto.envelope import Recorded
from abaco_proto.subjects import all_events_filter


class History(Protocol):
    """What of :class:`abaco_jetstream.ports.EventLog` is needed to read all of it."""

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the word of the port
        """See the port."""
        ...

    def follow(self, filters: Sequence[str], *, after: int = 0) -> AsyncGenerator[Batch, None]:
        """See the port."""
        ...


async def head_of(log: History) -> int:
    """The sequence of the last event; 0 when there is none."""
    last = await log.last(all_events_filter())
    return 0 if last is None else last.sequence


async def span(log: History, *, after: int, until: int) -> AsyncGenerator[Sequence[Recorded], None]:
    """The events behind ``after`` up to ``until``, in batches.

    Raises:
        Difference: one is missing, or the log ends before.
    """
    if after >= until:
        return
    head = await head_of(log)
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
