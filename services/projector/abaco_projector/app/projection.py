"""A projection: one stream into its rows, in batches that grow while the last one is written.

Theory: reading and writing are two tasks. While Postgres writes a batch, what arrives is read
ahead (bounded); then all of that is the next batch. So an event alone is written at once, and in
a rush many share one transaction. Only what is patient, and alone, is held back for a moment:
most executions end soon after they were assigned, and then take one transaction, not three.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from abaco_jetstream.ports import OutputLog
from abaco_projector.adapters import read_model_store as db
from abaco_projector.adapters.read_model_store import Store
from abaco_projector.app.log_range import History
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Undecodable
from abaco_proto.output import RecordedOutput
from abaco_proto.subjects import all_events_filter

logger = logging.getLogger(__name__)

Item = TypeVar("Item", Recorded, RecordedOutput)

Write: TypeAlias = Callable[[], Awaitable[None]]
Patient: TypeAlias = Callable[[Item], bool]

PATIENT_EVENTS = (ev.ExecutionAssigned, ev.ExecutionStarted)
MOST_BYTES = 32 * 1024 * 1024
"""In one batch, and about as many read ahead: messages may be large."""

PATIENCE_SECONDS = 0.05
"""How long a patient event waits for company at most."""


def never(item: Any) -> bool:  # noqa: ARG001
    """Of a projection whose items are all written at once."""
    return False


async def unwatched(batch: Sequence[Any], write: Write) -> None:  # noqa: ARG001
    """Write a batch, and tell nobody."""
    await write()


class Projection(msgspec.Struct, Generic[Item], frozen=True):
    """The name of its checkpoint, how to follow its stream, how to apply a batch.

    ``poison`` is for a message that was refused alone; it must not be refused again. Whatever
    writes a batch is called by ``watch``. What is ``patient`` may be held back for a moment.
    """

    name: str
    follow: Callable[[int], AsyncGenerator[Sequence[Item], None]]
    apply: Callable[[Store, Sequence[Item], int], Awaitable[None]]
    poison: Callable[[Store, Item, str], Awaitable[None]]
    watch: Callable[[Sequence[Item], Write], Awaitable[None]] = unwatched
    patient: Patient[Item] = never


Project: TypeAlias = Callable[[Projection[Item], Store, int, int], Awaitable[None]]
"""How a projection is kept up: :func:`project`, or a quicker way for its kind."""


def events(log: History) -> Projection[Recorded]:
    """The whole log into the aggregates' rows."""

    async def follow(after: int) -> AsyncGenerator[Sequence[Recorded], None]:
        async with aclosing(log.follow([all_events_filter()], after=after)) as batches:
            async for batch in batches:
                yield batch.events

    return Projection(db.EVENTS, follow, apply_events, _poisoned_event, patient=_patient)


def _patient(recorded: Recorded) -> bool:
    return isinstance(recorded.event, PATIENT_EVENTS)


def output(log: OutputLog) -> Projection[RecordedOutput]:
    """The output stream into the table ``logs``."""

    async def follow(after: int) -> AsyncGenerator[Sequence[RecordedOutput], None]:
        async with aclosing(log.follow(after=after)) as batches:
            async for batch in batches:
                yield batch.chunks

    async def apply(store: Store, batch: Sequence[RecordedOutput], after: int) -> None:
        await store.apply_output(batch, after=after)

    async def poison(store: Store, chunk: RecordedOutput, why: str) -> None:
        logger.error("output: message %d is left out: %s", chunk.sequence, why)
        await store.skip_output(chunk)

    return Projection(db.OUTPUT, follow, apply, poison)


async def apply_events(store: Store, batch: Sequence[Recorded], after: int) -> None:
    """Apply events, none of them poisoned."""
    await store.apply_events(batch, after=after)


async def _poisoned_event(store: Store, recorded: Recorded, why: str) -> None:
    """Only its body may be at fault; then it is kept as bytes, and folded like any other."""
    try:
        await store.apply_events([recorded], after=0, plain=True)
    except Undecodable:
        logger.error("events: message %d is left out: %s", recorded.sequence, why)  # noqa: TRY400 - the words say it all
        await store.skip_event(recorded)


async def project(projection: Projection[Item], store: Store, size: int, after: int) -> None:
    """Follow from ``after`` on, in transactions of at most ``size`` messages, without end."""
    async with aclosing(ahead(projection.follow(after), size, projection.patient)) as batches:
        async for batch in batches:
            if batch:
                await apply(projection, store, batch, after)
                after = batch[-1].sequence


async def apply(
    projection: Projection[Item], store: Store, batch: Sequence[Item], after: int
) -> None:
    """Apply a batch. What the database refuses is searched by halves, and set apart."""
    try:
        await projection.watch(batch, lambda: projection.apply(store, batch, after))
    except Undecodable as error:
        if len(batch) == 1:
            why = str(error)
            await projection.watch(batch, lambda: projection.poison(store, batch[0], why))
            return
        middle = len(batch) // 2
        await apply(projection, store, batch[:middle], after)
        await apply(projection, store, batch[middle:], batch[middle - 1].sequence)


async def ahead(
    batches: AsyncGenerator[Sequence[Item], None], size: int, patient: Patient[Item] = never
) -> AsyncGenerator[Sequence[Item], None]:
    """What ``batches`` gives, read in the background while its taker is busy.

    A batch has at most ``size`` items of ``MOST_BYTES`` together (or one larger item), and about as
    many are read ahead at most. An empty one says that nothing waits now. Items that are all
    ``patient`` wait for one that is not, but not long.
    """
    line = _Line(size, patient)
    reading = asyncio.ensure_future(line.fill(batches))
    try:
        while line.items or not reading.done():
            if not line.items:
                yield []
            batch = await line.take()
            if batch:
                yield batch
        await reading
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        await batches.aclose()


class _Line(Generic[Item]):
    """Items that were read and are not taken yet."""

    def __init__(self, size: int, patient: Patient[Item]) -> None:
        self.items: list[Item] = []
        self._bytes = 0
        self._size = size
        self._patient: Patient[Item] = patient
        self._filled, self._taken, self._urgent = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def fill(self, batches: AsyncGenerator[Sequence[Item], None]) -> None:
        """Read until the end, while there is room."""
        try:
            async for batch in batches:
                self.items.extend(batch)
                self._bytes += sum(map(_size, batch))
                self._filled.set()
                if not all(map(self._patient, batch)):
                    self._urgent.set()
                while len(self.items) >= self._size or self._bytes >= MOST_BYTES:
                    self._taken.clear()
                    await self._taken.wait()
        finally:
            self._filled.set()
            self._urgent.set()

    async def take(self) -> Sequence[Item]:
        """The next batch, when there is one; empty at the end."""
        await self._filled.wait()
        if not self._urgent.is_set():
            with suppress(asyncio.TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._urgent.wait()
        count = self._fitting()
        batch = self.items[:count]
        del self.items[:count]
        if not self.items:
            self._filled.clear()
            self._urgent.clear()
        self._taken.set()
        return batch

    def _fitting(self) -> int:
        """How many items the next batch has; they are not counted as waiting any more."""
        count = taken = 0
        for item in self.items[: self._size]:
            size = _size(item)
            if count and taken + size > MOST_BYTES:
                break
            count, taken = count + 1, taken + size
        self._bytes -= taken
        return count


def _size(item: Any) -> int:
    """The bytes of a message's body."""
    return len(item.output.data if isinstance(item, RecordedOutput) else getattr(item, "raw", b""))
