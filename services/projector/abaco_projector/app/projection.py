"""A projection: applies one stream to its rows, in batches that grow while the last one is written.

Reading and writing are two tasks. While Postgres writes a batch, messages are read ahead, up to a
limit; together they are the next batch. So a single event is written at once, and under load
many events share a transaction. Debounced events (``assigned``, ``started``) wait briefly for the
next event: most executions end soon after them, and are then written once instead of three times.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from abaco_jetstream.ports import OutputLog
from abaco_projector.adapters import read_model_store
from abaco_projector.adapters.read_model_store import ReadModelStore
from abaco_projector.app.log_range import ReadableLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Undecodable
from abaco_proto.names import all_events_filter
from abaco_proto.output import RecordedOutput

logger = logging.getLogger(__name__)

Item = TypeVar("Item", Recorded, RecordedOutput)

Write: TypeAlias = Callable[[], Awaitable[None]]
IsDebounced: TypeAlias = Callable[[Item], bool]

DEBOUNCED_EVENTS = (ev.ExecutionAssigned, ev.ExecutionStarted)
MAX_BATCH_BYTES = 32 * 1024 * 1024
"""The limit of one batch, and of what is read ahead: messages may be large."""

DEBOUNCE_SECONDS = 0.05
"""The longest time that a debounced event waits for another event."""


def never_debounced(item: Any) -> bool:  # noqa: ARG001
    """Return False: the default of a projection."""
    return False


async def uninstrumented(batch: Sequence[Any], write: Write) -> None:  # noqa: ARG001
    """Write a batch: the default of a projection."""
    await write()


class Projection(msgspec.Struct, Generic[Item], frozen=True):
    """A projection: the name of its checkpoint, how to follow its stream, and how to apply a batch.

    ``poison`` handles a message that was refused on its own; it must not be refused again.
    ``instrument`` is called around each write. ``debounced`` is true for items that may wait.
    """

    name: str
    follow: Callable[[int], AsyncGenerator[Sequence[Item], None]]
    apply: Callable[[ReadModelStore, Sequence[Item], int], Awaitable[None]]
    poison: Callable[[ReadModelStore, Item, str], Awaitable[None]]
    instrument: Callable[[Sequence[Item], Write], Awaitable[None]] = uninstrumented
    debounced: IsDebounced[Item] = never_debounced


RunProjection: TypeAlias = Callable[[Projection[Item], ReadModelStore, int, int], Awaitable[None]]
"""Runs a projection without end: :func:`project`, or a faster function for its kind."""


def events_projection(log: ReadableLog) -> Projection[Recorded]:
    """Return the projection of the log into the rows of the aggregates."""

    async def follow(after: int) -> AsyncGenerator[Sequence[Recorded], None]:
        async with aclosing(log.follow([all_events_filter()], after=after)) as batches:
            async for batch in batches:
                yield batch.events

    return Projection(
        read_model_store.EVENTS, follow, apply_events, _apply_poison_event, debounced=_is_debounced
    )


def _is_debounced(recorded: Recorded) -> bool:
    return isinstance(recorded.event, DEBOUNCED_EVENTS)


def output_projection(log: OutputLog) -> Projection[RecordedOutput]:
    """Return the projection of the output stream into the table ``logs``."""

    async def follow(after: int) -> AsyncGenerator[Sequence[RecordedOutput], None]:
        async with aclosing(log.follow(after=after)) as batches:
            async for batch in batches:
                yield batch.chunks

    async def apply(store: ReadModelStore, batch: Sequence[RecordedOutput], after: int) -> None:
        await store.apply_output(batch, after=after)

    async def poison(store: ReadModelStore, chunk: RecordedOutput, reason: str) -> None:
        logger.error(
            "chunk %d of output is skipped: Postgres refuses it (%s). The event"
            " log is complete without it; report this message",
            chunk.sequence,
            reason,
        )
        await store.skip_output(chunk)

    return Projection(read_model_store.OUTPUT, follow, apply, poison)


async def apply_events(store: ReadModelStore, batch: Sequence[Recorded], after: int) -> None:
    """Apply a batch of events."""
    await store.apply_events(batch, after=after)


async def _apply_poison_event(store: ReadModelStore, recorded: Recorded, reason: str) -> None:
    """Keep the body of an event as bytes, in case only the body is refused; otherwise skip the
    event.
    """
    try:
        await store.apply_events([recorded], after=0, body_as_bytes=True)
    except Undecodable:
        logger.error(  # noqa: TRY400 - the reason is in the message
            "event %d is skipped in the read models: Postgres refuses it (%s). The log keeps it;"
            " report this message",
            recorded.sequence,
            reason,
        )
        await store.skip_event(recorded)


async def project(
    projection: Projection[Item], store: ReadModelStore, size: int, after: int
) -> None:
    """Apply the stream after ``after``, in transactions of at most ``size`` messages, without
    end.
    """
    async with aclosing(
        read_ahead(projection.follow(after), size, projection.debounced)
    ) as batches:
        async for batch in batches:
            if batch:
                await apply(projection, store, batch, after)
                after = batch[-1].sequence


async def apply(
    projection: Projection[Item], store: ReadModelStore, batch: Sequence[Item], after: int
) -> None:
    """Apply a batch. If Postgres refuses it, halve it until the refused message is alone."""
    try:
        await projection.instrument(batch, lambda: projection.apply(store, batch, after))
    except Undecodable as error:
        if len(batch) == 1:
            reason = str(error)
            await projection.instrument(batch, lambda: projection.poison(store, batch[0], reason))
            return
        middle = len(batch) // 2
        await apply(projection, store, batch[:middle], after)
        await apply(projection, store, batch[middle:], batch[middle - 1].sequence)


async def read_ahead(
    batches: AsyncGenerator[Sequence[Item], None],
    size: int,
    debounced: IsDebounced[Item] = never_debounced,
) -> AsyncGenerator[Sequence[Item], None]:
    """Yield batches, reading ``batches`` in the background while the caller is busy.

    A batch has at most ``size`` items and ``MAX_BATCH_BYTES`` (or one larger item); about as many
    are read ahead at most. An empty batch means that nothing is waiting. Items that are all
    ``debounced`` wait up to ``DEBOUNCE_SECONDS`` for one that is not.
    """
    buffer = _ReadAheadBuffer(size, debounced)
    reading = asyncio.ensure_future(buffer.fill(batches))
    try:
        while buffer.items or not reading.done():
            if not buffer.items:
                yield []
            batch = await buffer.take()
            if batch:
                yield batch
        await reading
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        await batches.aclose()


class _ReadAheadBuffer(Generic[Item]):
    """Items that were read and not yet taken."""

    def __init__(self, size: int, debounced: IsDebounced[Item]) -> None:
        self.items: list[Item] = []
        self._bytes = 0
        self._max_items = size
        self._is_debounced: IsDebounced[Item] = debounced
        self._has_items = asyncio.Event()
        self._has_space = asyncio.Event()
        self._has_urgent = asyncio.Event()

    async def fill(self, batches: AsyncGenerator[Sequence[Item], None]) -> None:
        """Read until the end; pause while the buffer is full."""
        try:
            async for batch in batches:
                self.items.extend(batch)
                self._bytes += sum(map(_body_bytes, batch))
                self._has_items.set()
                if not all(map(self._is_debounced, batch)):
                    self._has_urgent.set()
                while len(self.items) >= self._max_items or self._bytes >= MAX_BATCH_BYTES:
                    self._has_space.clear()
                    await self._has_space.wait()
        finally:
            self._has_items.set()
            self._has_urgent.set()

    async def take(self) -> Sequence[Item]:
        """Return the next batch, waiting for one; empty at the end."""
        await self._has_items.wait()
        if not self._has_urgent.is_set():
            with suppress(asyncio.TimeoutError):
                async with asyncio.timeout(DEBOUNCE_SECONDS):
                    await self._has_urgent.wait()
        count = self._next_batch_size()
        batch = self.items[:count]
        del self.items[:count]
        if not self.items:
            self._has_items.clear()
            self._has_urgent.clear()
        self._has_space.set()
        return batch

    def _next_batch_size(self) -> int:
        """Return how many items the next batch has, and subtract their bytes."""
        if len(self.items) <= self._max_items and self._bytes <= MAX_BATCH_BYTES:
            self._bytes = 0
            return len(self.items)
        count = taken = 0
        for item in self.items[: self._max_items]:
            size = _body_bytes(item)
            if count and taken + size > MAX_BATCH_BYTES:
                break
            count, taken = count + 1, taken + size
        self._bytes -= taken
        return count


def _body_bytes(item: Any) -> int:
    """Return the size of a message's body in bytes."""
    return len(item.output.data if isinstance(item, RecordedOutput) else getattr(item, "raw", b""))
