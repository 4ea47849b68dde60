"""Keyed queue: jobs with the same key run one at a time, in the order of their arrival.

Theory: optimistic concurrency keeps a history right, but many writers of one process would only
make one another retry. Jobs that append to the same history share a key. A key with jobs has one
task, which runs them until none is left. When the log does not answer one job, it would not
answer those behind it either: they fail with it, so that no job waits longer than one timeout for
a log that is unavailable.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVar

from abaco_proto.errors import Unavailable

T = TypeVar("T")

MAX_WAIT_SECONDS = 10.0
"""The longest wait in a queue that moves."""


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
    """Queues by key; a job may take at most ``seconds``."""

    def __init__(self, seconds: float) -> None:
        """All queues are empty."""
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
                    for behind in queue:
                        behind.fail(Unavailable("the log (NATS) did not answer"))
                    queue.clear()
        finally:
            del self._queues[key]
            for behind in queue:
                behind.fail(Unavailable("the service stops"))

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
