"""The state of one worker, at a cost independent of how many workers its actor ever had.

The read models have the worker as of their checkpoint; the events since then are read from the log.
If the read models are unavailable or far behind, the actor's whole worker history is folded. The
fold continues after a request's timeout, and later requests use it.
"""

import asyncio
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field

from abaco_api.queries.read_models import ReadModels
from abaco_jetstream.ports import EventLog
from abaco_proto import names
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.names import workers_filter
from abaco_proto.worker import INITIAL, Worker, WorkerStatus, evolve

MAX_LAG = 10_000
"""If the read models are more events behind than this, the history is folded instead."""

MAX_FOLDS = 100
"""Actors whose fold is cached."""


@dataclass(slots=True)
class _Fold:
    """The live workers of one actor up to ``position``, and how many it ever had."""

    position: int = 0
    live: dict[str, Worker] = field(default_factory=dict)
    count: int = 0
    reading: "asyncio.Task[None] | None" = None

    def apply(self, recorded: Recorded) -> None:
        """Fold one more event."""
        self.position = recorded.sequence
        worker_id = getattr(recorded.event, "worker_id", "")
        number = names.worker_number(worker_id, getattr(recorded.event, "actor_id", ""))
        if number is None:
            return
        self.count = max(self.count, number + 1)
        worker = evolve(self.live.pop(worker_id, INITIAL), recorded)
        if worker.live:
            self.live[worker_id] = worker

    def worker(self, actor_id: str, worker_id: str) -> Worker:
        """A worker; of an ended one only its ids and that it is stopped."""
        number = names.worker_number(worker_id, actor_id)
        if worker_id in self.live or number is None or number >= self.count:
            return self.live.get(worker_id, INITIAL)
        return Worker(worker_id=worker_id, actor_id=actor_id, status=WorkerStatus.STOPPED)


@dataclass(frozen=True, slots=True)
class ProjectedWorker:
    """A worker in the read models, and the sequence of their last event."""

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

    async def projected(self, actor_id: str, worker_id: str) -> ProjectedWorker | None:
        """A worker in the read models; None if they are unavailable."""
        try:
            return ProjectedWorker(*await self._models.worker_at(actor_id, worker_id))
        except Unavailable:
            return None

    async def worker(
        self, actor_id: str, worker_id: str, projected: ProjectedWorker | None
    ) -> tuple[Worker, int]:
        """The state of a worker, and the sequence of the last event that it includes.

        Raises:
            Unavailable: the log does not answer.
        """
        last = await self._log.last(workers_filter(self._tenant, actor_id))
        end = last.sequence if last is not None else 0
        if projected is not None and end - projected.sequence <= MAX_LAG:
            return await self._since(projected, actor_id, worker_id, end)
        fold = await self._folded(actor_id)
        return fold.worker(actor_id, worker_id), fold.position

    async def _since(
        self, projected: ProjectedWorker, actor_id: str, worker_id: str, end: int
    ) -> tuple[Worker, int]:
        worker, head = projected.worker, projected.sequence
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
        while len(self._folds) > MAX_FOLDS:
            self._folds.popitem(last=False)
        if fold.reading is not None:  # of an earlier request, up to the end at its time
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
                        fold.apply(recorded)
        finally:
            fold.reading = None


def _retrieved(task: "asyncio.Task[None]") -> None:
    """Retrieve the error of a read that no request waits for, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
