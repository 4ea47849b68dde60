"""A subscriber of the log, in a thread of its own: what happened, and when it reached us."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.names import all_events_filter

OPEN_SECONDS = 30.0

T = TypeVar("T")


class ExecutionRecord:
    """The events of one execution, and when they arrived: seconds since 1970, as ``time.time``."""

    def __init__(self) -> None:
        self.received: Recorded | None = None
        self.received_seen = 0.0
        self.assigned: Recorded | None = None
        self.started: ev.ExecutionStarted | None = None
        self.finished: ev.ExecutionFinished | None = None
        self.finished_seen = 0.0


class Subscriber:
    """Follows the whole log from its beginning. Use as a context."""

    def __init__(self, nats_url: str) -> None:
        self._url = nats_url
        self._news = threading.Condition()
        self._records: dict[str, ExecutionRecord] = {}
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="subscriber")
        self._following = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._following.wait(OPEN_SECONDS), "the log cannot be followed"
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(OPEN_SECONDS)

    def finished(self, execution_id: str, seconds: float) -> ExecutionRecord:
        """The record of an execution, as soon as it is finished.

        Raises:
            TimeoutError: it is not, in time.
        """

        def done() -> ExecutionRecord | None:
            record = self._records.get(execution_id)
            return record if record is not None and record.finished is not None else None

        return self._wait(done, seconds, f"{execution_id} is not finished")

    def ends(self, actor_id: str) -> list[float]:
        """When each of an actor's executions was seen finished."""
        with self._news:
            return [
                record.finished_seen
                for record in self._records.values()
                if record.finished is not None and record.finished.actor_id == actor_id
            ]

    def records(self, actor_id: str) -> list[ExecutionRecord]:
        """The finished executions of an actor."""
        with self._news:
            return [
                record
                for record in self._records.values()
                if record.finished is not None and record.finished.actor_id == actor_id
            ]

    def kinds(self, actor_id: str) -> list[str]:
        """How each of an actor's executions started: ``sandbox``, ``pool`` or ``cold``."""
        with self._news:
            return [
                record.started.start_kind
                for record in self._records.values()
                if record.started is not None and record.started.actor_id == actor_id
            ]

    def _wait(self, check: Callable[[], T | None], seconds: float, what: str) -> T:
        deadline = time.monotonic() + seconds
        with self._news:
            while (found := check()) is None:
                if not self._news.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{what} within {seconds} s")
            return found

    def _run(self) -> None:
        self._task = self._loop.create_task(self._follow())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _follow(self) -> None:
        connection = Connection(self._url, name="bench", timeout=10)
        await connection.open()
        try:
            async for batch in JetStreamEventLog(connection).follow([all_events_filter()]):
                self._take(batch.events, time.time())
                self._following.set()
        finally:
            await connection.close()

    def _take(self, events: Sequence[Recorded], now: float) -> None:
        with self._news:
            for recorded in events:
                self._note(recorded, now)
            self._news.notify_all()

    def _note(self, recorded: Recorded, now: float) -> None:
        event = recorded.event
        execution_id = getattr(event, "execution_id", None)
        if execution_id is None:
            return
        record = self._records.setdefault(execution_id, ExecutionRecord())
        match event:
            case ev.MessageReceived():
                record.received, record.received_seen = recorded, now
            case ev.ExecutionAssigned():
                record.assigned = recorded
            case ev.ExecutionStarted():
                record.started = event
            case ev.ExecutionFinished() if record.finished is None:
                record.finished, record.finished_seen = event, now
            case _:
                pass
