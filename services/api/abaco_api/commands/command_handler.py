"""The command handler: read a history, decide, append, and retry on a conflict.

Theory: every command is decided on one history of the log. The decision is a pure function of the
state that is folded from it; its events are appended on the condition that the history has not
grown meanwhile. If it has, the command is decided again on the new state.

That alone keeps a history right, between processes too, but many writers of one process would only
make one another retry. So commands on the same history run one at a time in this process
(:class:`KeyedQueue`).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar
from uuid import uuid4

import msgspec

from abaco_api.access.domain.principal import Principal
from abaco_api.commands.idempotency import IdempotencyKey, KeyIndex
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Expected, Recorded, draft, service_principal
from abaco_proto.errors import Conflict, Unavailable, Unknown
from abaco_telemetry.context import current_traceparent

S = TypeVar("S")
T = TypeVar("T")

MAX_WAIT_SECONDS = 10.0
"""The longest wait in a queue that moves."""

API = service_principal(ev.Owner.API)


def _request_id() -> str:
    return f"req-{uuid4()}"


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The cause of a command's events; by default, a request without an idempotency key.

    ``traceparent`` is by default that of the current span. ``time`` is when the command was
    decided, by default now. Without ``correlation_id`` an event is the first of its chain.
    ``principal`` is who sent the request; None for a command of the api itself.
    """

    causation_id: str = msgspec.field(default_factory=_request_id)
    key: IdempotencyKey | None = None
    correlation_id: str | None = None
    hops: int = 0
    traceparent: str | None = msgspec.field(default_factory=current_traceparent)
    time: datetime | None = None
    principal: Principal | None = None


class History(Protocol[S]):
    """One history in the log, with the state that is folded from it."""

    @property
    def queue_key(self) -> str:
        """Commands with the same key run one at a time."""
        ...

    @property
    def key_filter(self) -> str:
        """The subjects of the events that a request with an idempotency key leads to."""
        ...

    async def load(self) -> S:
        """The state to decide on. It may be behind the log. Raises ``Unknown``."""
        ...

    async def reload(self, state: S) -> S:
        """The state after a conflict, which holds what broke the condition."""
        ...

    async def head(self, state: S) -> int:
        """The sequence up to which idempotency keys must be known before a decision."""
        ...

    def expected(self, state: S, event: ev.Event) -> Expected | None:
        """The condition of the append of an event that was decided on a state.

        None where the id of the event alone keeps out a second one.
        """
        ...

    def evolve(self, state: S, recorded: Recorded) -> S:
        """The state after an event that this process appended."""
        ...


class Executed(msgspec.Struct, Generic[S], frozen=True):
    """The state after a command, and the events it led to; none if there was nothing to do."""

    state: S
    events: Sequence[Recorded]


class CommandHandler:
    """Executes all commands of a tenant in one process."""

    def __init__(self, log: EventLog, tenant: str, keys: KeyIndex, seconds: float) -> None:
        """``seconds`` is the longest time that one command may take at the front of its queue."""
        self._log = log
        self._tenant = tenant
        self._keys = keys
        self._queue = KeyedQueue(seconds)

    async def execute(
        self,
        history: History[S],
        decide: Callable[[S], Sequence[ev.Event]],
        cause: Cause | None = None,
    ) -> Executed[S]:
        """Execute a command: ``decide`` returns its events, and is called again after a conflict.

        Raises:
            AlreadyExecuted: a request with the cause's key was executed before.
            KeyReused: another request was, with the same key.
            Unavailable: the log did not answer in time.
            AbacoError: what ``decide`` and the history raise.
        """
        known = cause or Cause()
        if known.key is not None:
            await self._keys.prepare(history.key_filter)
        return await self._queue.run(
            history.queue_key, lambda: self._decide_and_append(history, decide, known)
        )

    async def _decide_and_append(
        self,
        history: History[S],
        decide: Callable[[S], Sequence[ev.Event]],
        cause: Cause,
    ) -> Executed[S]:
        try:
            state = await history.load()
        except Unknown:
            if cause.key is not None:  # an executed request is found even if its actor was deleted
                last = await self._log.last(history.key_filter)
                head = 0 if last is None else last.sequence
                await self._keys.check(history.key_filter, head, cause.key)
            raise
        while True:
            if cause.key is not None:
                await self._keys.check(history.key_filter, await history.head(state), cause.key)
            appended: list[Recorded] = []
            try:
                for event in decide(state):
                    recorded = await self._append(event, history.expected(state, event), cause)
                    appended.append(recorded)
                    state = history.evolve(state, recorded)
            except Conflict:
                state = await history.reload(state)
            else:
                return Executed(state, appended)

    async def _append(self, event: ev.Event, expected: Expected | None, cause: Cause) -> Recorded:
        """Append an event, and return it as it is in the log.

        Raises:
            Conflict: the condition does not hold.
            Unavailable: no answer in time; the event may be in the log or not.
        """
        event_draft = draft(
            event,
            tenant=self._tenant,
            time=cause.time or datetime.now(UTC),
            causation_id=cause.causation_id,
            correlation_id=cause.correlation_id,
            position=0 if expected is None else expected.sequence,
            hops=cause.hops,
            principal=API if cause.principal is None else cause.principal.text,
            traceparent=cause.traceparent,
        )
        sequence = await self._log.append(event_draft, expected=expected)
        recorded = Recorded(
            sequence=sequence,
            subject=event_draft.subject,
            tenant=self._tenant,
            event=event,
            id=event_draft.id,
            time=event_draft.time,
            causation_id=event_draft.causation_id,
            correlation_id=event_draft.correlation_id,
            hops=event_draft.hops,
            principal=event_draft.principal,
            traceparent=event_draft.traceparent,
        )
        if expected is not None:
            self._keys.add(expected.filter, expected.sequence, recorded, cause.key)
        return recorded


# -- one at a time ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Entry:
    """A job in a queue, the time of its arrival, and the future of its result."""

    job: Callable[[], Awaitable[Any]]
    arrived: float
    result: "asyncio.Future[Any]"

    def fail(self, error: BaseException) -> None:
        """Fail the job, unless its caller was cancelled."""
        if not self.result.done():
            self.result.set_exception(error)


class KeyedQueue:
    """Runs jobs with the same key one at a time, in the order of their arrival.

    A key with jobs has one task, which runs them until none is left. When the log does not answer
    one job, it would not answer the next ones either: they fail with it, so that no job waits
    longer than one timeout for a log that is unavailable.
    """

    def __init__(self, seconds: float) -> None:
        """All queues are empty; a job may take at most ``seconds``."""
        self._seconds = seconds
        self._queues: dict[str, deque[_Entry]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, key: str, job: Callable[[], Awaitable[T]]) -> T:
        """Run a job after those that arrived before it under the same key; its result.

        A job that has begun runs to its end, whether or not its caller still waits. It runs in an
        empty context: context variables of one request are not seen by the next.

        Raises:
            Unavailable: the queue was too long, or the log did not answer.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(job, loop.time(), loop.create_future())
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            task = loop.create_task(self._run_all(key, queue), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        queue.append(entry)
        result: T = await entry.result
        return result

    async def _run_all(self, key: str, queue: deque[_Entry]) -> None:
        """Run the jobs of a queue until it is empty."""
        clock = asyncio.get_running_loop().time
        try:
            while queue:
                entry = queue.popleft()
                if entry.result.done():
                    continue  # its caller was cancelled
                if clock() - entry.arrived > MAX_WAIT_SECONDS:
                    entry.fail(Unavailable(f"too many requests wait for {key}"))
                elif not await self._run_one(entry):
                    for waiting in queue:
                        waiting.fail(Unavailable("the log (NATS) did not answer"))
                    queue.clear()
        finally:
            del self._queues[key]
            for waiting in queue:
                waiting.fail(Unavailable("the service stops"))

    async def _run_one(self, entry: _Entry) -> bool:
        """Run one job; False when the log did not answer."""
        try:
            async with asyncio.timeout(self._seconds):
                result = await entry.job()
        except asyncio.TimeoutError:
            entry.fail(Unavailable(f"the log (NATS) did not answer within {self._seconds} s"))
            return False
        except Exception as error:  # noqa: BLE001 - it is the caller's
            entry.fail(error)
            return not isinstance(error, Unavailable)
        except BaseException:
            entry.fail(Unavailable("the service stops"))
            raise
        if not entry.result.done():
            entry.result.set_result(result)
        return True
