"""In-memory adapters for ``abaco_jetstream.ports``; they pass the same contract suites."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

from msgspec.structs import replace

from abaco_jetstream.ports import Batch, OutputBatch
from abaco_proto import envelope
from abaco_proto.envelope import Draft, Expected, Recorded
from abaco_proto.errors import Conflict, Unavailable
from abaco_proto.events import Event
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.names import host_work_filter
from abaco_proto.output import Output, RecordedOutput


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject matches a NATS filter."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for at, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > at
        if at >= len(tokens) or token not in ("*", tokens[at]):
            return False
    return len(wanted) == len(tokens)


class InMemoryEventLog:
    """Implements ``EventLog``. With ``available = False`` every call raises ``Unavailable``."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.stored_at: list[datetime] = []
        self.available = True
        self.before_append: Callable[[Draft], None] = lambda draft: None
        self._grown = asyncio.Event()

    async def append(self, draft: Draft, *, expected: Expected | None = None) -> int:
        await asyncio.sleep(0)
        self._check()
        self.before_append(draft)
        subject = draft.subject
        if expected is not None and self._head(expected.filter) != expected.sequence:
            last = await self.last(subject)
            if last is not None and last.matches(draft):
                return last.sequence
            raise Conflict(subject)
        for recorded in self.events:
            if recorded.tenant == draft.tenant and recorded.id == draft.id:
                if recorded.matches(draft):
                    return recorded.sequence
                raise Conflict(draft.id)
        return self.put_raw(subject, envelope.to_headers(draft), envelope.encode(draft.event))

    def put_raw(self, subject: str, headers: dict[str, str], body: bytes) -> int:
        """Store bytes without decoding them, as a server does."""
        sequence = len(self.events) + 1
        self.events.append(envelope.from_message(sequence, subject, headers, body))
        self.stored_at.append(datetime.now(UTC))
        self._grown.set()
        self._grown = asyncio.Event()
        return sequence

    async def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        self._check()
        found = [
            recorded
            for recorded in self._select(filters, after)
            if since is None or self.stored_at[recorded.sequence - 1] >= since
        ]
        if headers_only:
            found = [replace(r, event=envelope.skip_body(b""), raw=b"") for r in found]
        if found:
            yield found

    async def follow(
        self, filters: Sequence[str], *, after: int = 0
    ) -> AsyncGenerator[Batch, None]:
        cursor, first = after, True
        while True:
            grown = self._grown
            found = self._select(filters, cursor)
            if found or first:
                yield Batch(events=found, pending=0)
            first = False
            cursor = found[-1].sequence if found else cursor
            if not self._select(filters, cursor):
                await grown.wait()

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002
        self._check()
        return self._last(filter)

    async def at(self, sequence: int) -> Recorded | None:
        self._check()
        return self.events[sequence - 1] if 0 < sequence <= len(self.events) else None

    def bodies(self, *kinds: type[Event]) -> list[Event]:
        """The events of these kinds, in order, without their envelopes."""
        return [r.event for r in self.events if not kinds or isinstance(r.event, kinds)]

    def _select(self, filters: Sequence[str], after: int) -> list[Recorded]:
        return [r for r in self.events[after:] if any(matches(f, r.subject) for f in filters)]

    def _last(self, pattern: str) -> Recorded | None:
        """Searched from the end, where the newest events are."""
        return next((r for r in reversed(self.events) if matches(pattern, r.subject)), None)

    def _head(self, pattern: str) -> int:
        found = self._last(pattern)
        return found.sequence if found else 0

    def _check(self) -> None:
        if not self.available:
            raise Unavailable("the fake log is not available")


class InMemoryOutputLog:
    """Implements ``OutputLog``."""

    def __init__(self) -> None:
        self.chunks: list[RecordedOutput] = []
        self.available = True
        self.followers = 0
        self.handed_out = 0
        self._grown = asyncio.Event()

    async def write(self, output: Output) -> None:
        await asyncio.sleep(0)
        if not self.available:
            raise Unavailable("the fake log is not available")
        if any(chunk.output == output for chunk in self.chunks):
            return
        self.chunks.append(RecordedOutput(sequence=len(self.chunks) + 1, output=output))
        self._grown.set()
        self._grown = asyncio.Event()

    async def follow(self, *, after: int = 0) -> AsyncGenerator[OutputBatch, None]:
        async with aclosing(self._follow(lambda _: True, after)) as batches:
            async for batch in batches:
                yield batch

    async def follow_execution(
        self, tenant: str, actor_id: str, execution_id: str
    ) -> AsyncGenerator[OutputBatch, None]:
        wanted = (tenant, actor_id, execution_id)
        self.followers += 1
        try:
            async with aclosing(
                self._follow(lambda o: (o.tenant, o.actor_id, o.execution_id) == wanted, 0)
            ) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self.followers -= 1

    async def _follow(
        self, wanted: Callable[[Output], bool], after: int
    ) -> AsyncGenerator[OutputBatch, None]:
        cursor, first = after, True
        while True:
            grown = self._grown
            found = [chunk for chunk in self.chunks[cursor:] if wanted(chunk.output)]
            cursor = len(self.chunks)
            if found or first:
                self.handed_out += 1
                yield OutputBatch(chunks=found, pending=0)
            first = False
            if cursor == len(self.chunks):
                await grown.wait()


class InMemoryDelivery:
    """Implements ``Delivery``, and records how it was acknowledged."""

    def __init__(
        self, queue: "InMemoryWorkQueue", recorded: Recorded, *, redelivered: bool
    ) -> None:
        self.recorded = recorded
        self.redelivered = redelivered
        self.settled = False
        self.reports = 0
        self._queue = queue

    async def done(self) -> None:
        self.settled = True
        self._queue.settled.add(self.recorded.sequence)

    async def working(self) -> None:
        self.reports += 1

    async def retry(self, delay_seconds: float) -> None:
        self._queue.redeliver(self.recorded)


class InMemoryWorkQueue:
    """Implements ``WorkQueue`` over an ``InMemoryEventLog``. Call ``redeliver`` for a timeout."""

    def __init__(self, log: InMemoryEventLog, host_id: str) -> None:
        self._log = log
        self._filter = host_work_filter(host_id)
        self._again: list[Recorded] = []
        self._wake = asyncio.Event()
        self.settled: set[int] = set()
        self.handed_out: list[InMemoryDelivery] = []
        self._cursor = 0

    def redeliver(self, recorded: Recorded) -> None:
        """Deliver an event again."""
        self._again.append(recorded)
        self._wake.set()

    def redeliver_unsettled(self) -> None:
        """Deliver all unacknowledged events again, as the server does after a host stopped."""
        for delivery in list(self.handed_out):
            if delivery.recorded.sequence not in self.settled:
                self.redeliver(delivery.recorded)

    async def deliveries(self) -> AsyncGenerator[InMemoryDelivery, None]:
        following = asyncio.create_task(self._follow())
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._again:
                    yield self._hand_out(self._again.pop(0))
        finally:
            following.cancel()

    def _hand_out(self, recorded: Recorded) -> InMemoryDelivery:
        before = any(d.recorded.sequence == recorded.sequence for d in self.handed_out)
        delivery = InMemoryDelivery(self, recorded, redelivered=before)
        self.handed_out.append(delivery)
        return delivery

    async def _follow(self) -> None:
        async for batch in self._log.follow([self._filter], after=self._cursor):
            for recorded in batch.events:
                self._cursor = recorded.sequence
                self.redeliver(recorded)


class InMemoryHeartbeats:
    """Implements ``Heartbeats``."""

    def __init__(self) -> None:
        self.sent: list[Heartbeat] = []
        self._listeners: list[asyncio.Queue[Heartbeat]] = []

    async def send(self, heartbeat: Heartbeat) -> None:
        self.sent.append(heartbeat)
        for listener in self._listeners:
            listener.put_nowait(heartbeat)

    async def listen(self) -> AsyncGenerator[Heartbeat, None]:
        mine: asyncio.Queue[Heartbeat] = asyncio.Queue()
        self._listeners.append(mine)
        try:
            while True:
                yield await mine.get()
        finally:
            self._listeners.remove(mine)


class InMemorySnapshots:
    """Implements ``Snapshots``. With ``available = False`` every call raises ``Unavailable``."""

    MAX_BYTES = 8 * 1024 * 1024

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.available = True

    async def get(self, name: str) -> bytes | None:
        self._check()
        return self.values.get(name)

    async def put(self, name: str, value: bytes) -> None:
        self._check()
        if len(value) > self.MAX_BYTES:
            raise Unavailable("larger than a message may be")
        self.values[name] = value

    def _check(self) -> None:
        if not self.available:
            raise Unavailable("the fake log is not available")
