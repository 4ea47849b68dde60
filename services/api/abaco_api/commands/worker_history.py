"""What the log says of one worker, at a cost that does not grow with how many its actor ever had.

The read models have the worker as it was at their checkpoint; the events since then are read from
the log. Without the read models, or when they are far behind, the actor's whole worker history is
folded. Such a fold goes on when a request runs out of time, and later requests begin where it is.
"""

import asyncio
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field

from abaco_api.queries.read_models import ReadModels
from abaco_jetstream.ports import EventLog
from abaco_proto import ids
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.subjects import workers_filter
from abaco_proto.worker import INITIAL, Worker, WorkerStatus, evolve

MOST_BEHIND = 10_000
"""Events that the read models may be behind; more are left to the fold, which can be resumed."""

REMEMBERED = 100
"""Actors whose fold is kept."""


@dataclass(slots=True)
class _Fold:
    """The live workers of one actor up to ``position``, and how many it ever had."""

    position: int = 0
    live: dict[str, Worker] = field(default_factory=dict)
    count: int = 0
    reading: "asyncio.Task[None] | None" = None

    def learn(self, recorded: Recorded) -> None:
        """Fold one more event."""
        self.position = recorded.sequence
        worker_id = getattr(recorded.event, "worker_id", "")
        number = ids.worker_number(worker_id, getattr(recorded.event, "actor_id", ""))
        if number is None:
            return
        self.count = max(self.count, number + 1)
        worker = evolve(self.live.pop(worker_id, INITIAL), recorded)
        if worker.live:
            self.live[worker_id] = worker

    def worker(self, actor_id: str, worker_id: str) -> Worker:
        """A worker; of one that has ended, no more than that."""
        number = ids.worker_number(worker_id, actor_id)
        if worker_id in self.live or number is None or number >= self.count:
            return self.live.get(worker_id, INITIAL)
        return Worker(worker_id=worker_id, actor_id=actor_id, status=WorkerStatus.STOPPED)


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker as the read models have it, and the sequence of their last event."""

    worker: Worker
    sequence: int


class WorkerHistory:
    """Reads workers for the commands on them."""

    def __init__(self, log: EventLog, models: ReadModels, tenant: str) -> None:
        """Nothing is read yet."""
        self._log = log
        self._models = models
        self._tenant = tenant
        self._folds: OrderedDict[str, _Fold] = OrderedDict()

    async def seen(self, actor_id: str, worker_id: str) -> Seen | None:
        """What the read models have of a worker; None when they do not answer."""
        try:
            return Seen(*await self._models.worker_at(actor_id, worker_id))
        except Unavailable:
            return None

    async def worker(self, actor_id: str, worker_id: str, seen: Seen | None) -> tuple[Worker, int]:
        """A worker as it is now, and the sequence of an event that this rests on.

        Raises:
            Unavailable: the log does not answer.
        """
        last = await self._log.last(workers_filter(self._tenant, actor_id))
        end = last.sequence if last is not None else 0
        if seen is not None and end - seen.sequence <= MOST_BEHIND:
            return await self._since(seen, actor_id, worker_id, end)
        fold = await self._folded(actor_id)
        return fold.worker(actor_id, worker_id), fold.position

    async def _since(
        self, seen: Seen, actor_id: str, worker_id: str, end: int
    ) -> tuple[Worker, int]:
        worker, head = seen.worker, seen.sequence
        if end <= head:
            return worker, head
        history = self._log.read([workers_filter(self._tenant, actor_id)], after=head)
        async with aclosing(history) as batches:
            async for batch in batches:
                for recorded in batch:
                    head = recorded.sequence
                    if getattr(recorded.event, "worker_id", None) == worker_id:
                        worker = evolve(worker, recorded)
        return worker, head

    async def _folded(self, actor_id: str) -> _Fold:
        fold = self._folds.setdefault(actor_id, _Fold())
        self._folds.move_to_end(actor_id)
        while len(self._folds) > REMEMBERED:
            self._folds.popitem(last=False)
        if fold.reading is not None:  # begun for an earlier request, up to the end as it was then
            await asyncio.shield(fold.reading)
        fold.reading = asyncio.create_task(self._read_on(actor_id, fold))
        fold.reading.add_done_callback(_retrieved)
        await asyncio.shield(fold.reading)
        return fold

    async def _read_on(self, actor_id: str, fold: _Fold) -> None:
        try:
            history = self._log.read([workers_filter(self._tenant, actor_id)], after=fold.position)
            async with aclosing(history) as batches:
                async for batch in batches:
                    for recorded in batch:
                        fold.learn(recorded)
        finally:
            fold.reading = None


def _retrieved(task: "asyncio.Task[None]") -> None:
    """Its error is for whoever waits; nobody may."""
    if not task.cancelled():
        task.exception()
