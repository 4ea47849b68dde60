"""The live workers of this host, folded from the log, with a checkpoint in the worker's folder.

Requests carry the host in their subject, but the ends of workers do not: they are read of all
hosts. The checkpoint says how far the log was folded, and what came of it. It is a shortcut and
never a source: where it is lost, damaged, or of another log, everything is read again.
"""

import asyncio
import logging
from contextlib import aclosing, suppress
from pathlib import Path

import msgspec

from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.subjects import all_of_type_filter, host_requests_filter
from abaco_worker.app.waiting import patiently
from abaco_worker.domain.sandbox_spec import SeatKey

logger = logging.getLogger(__name__)

FILE = "live-workers"

CHECKPOINT_SECONDS = 60.0
"""How often it is brought up to date: a start reads what happened since, and no more."""

ENDS = (ev.WorkerStopped, ev.WorkerFailed, ev.WorkerLost)


class _Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The live workers after the event with this sequence; ``proof`` tells it from any other."""

    host_id: str
    sequence: int
    proof: str
    workers: list[SeatKey]


class LiveWorkers:
    """The live workers of one host up to a place in the log."""

    def __init__(self, log: EventLog, host_id: str, folder: Path) -> None:
        """Nothing is read yet."""
        self._log = log
        self._host_id = host_id
        self._file = folder / FILE
        self._filters = [
            host_requests_filter(host_id),
            *(all_of_type_filter(kind) for kind in ENDS),
        ]
        self._workers: dict[SeatKey, None] = {}  # in the order of their requests
        self._last: Recorded | None = None
        self._saved = 0

    async def start(self) -> list[SeatKey]:
        """The live workers now: those of the checkpoint, and what happened since."""
        await self._load()
        return await self.update()

    async def run(self) -> None:
        """Keep the checkpoint near the end of the log, without end."""
        while True:
            self.save()
            await asyncio.sleep(CHECKPOINT_SECONDS)
            await self.update()

    async def update(self) -> list[SeatKey]:
        """Read on, however long the log is away."""
        await patiently(self._read_on)
        return list(self._workers)

    @property
    def _sequence(self) -> int:
        return self._last.sequence if self._last is not None else 0

    async def _read_on(self) -> None:
        async with aclosing(self._log.read(self._filters, after=self._sequence)) as batches:
            async for batch in batches:
                for recorded in batch:
                    self._learn(recorded)

    def _learn(self, recorded: Recorded) -> None:
        self._last = recorded
        event = recorded.event
        match event:
            case ev.WorkerRequested() if event.host_id == self._host_id:
                self._workers[SeatKey(recorded.tenant, event.actor_id, event.worker_id)] = None
            case ev.WorkerStopped() | ev.WorkerFailed() | ev.WorkerLost():
                key = SeatKey(recorded.tenant, event.actor_id, event.worker_id)
                self._workers.pop(key, None)

    # -- the checkpoint ------------------------------------------------------------------------

    async def _load(self) -> None:
        try:
            found = msgspec.json.decode(self._file.read_bytes(), type=_Checkpoint)
        except (OSError, msgspec.DecodeError):
            logger.info("no checkpoint of this host's workers; their whole history is read")
            return
        last = await patiently(lambda: self._log.at(found.sequence))
        if found.host_id != self._host_id or last is None or _proof(last) != found.proof:
            logger.warning("%s is of another log or host, and is not used", self._file)
            return
        self._last, self._saved = last, last.sequence
        self._workers = dict.fromkeys(found.workers)

    def save(self) -> None:
        """Write the checkpoint, if there is news."""
        if self._last is None or self._sequence == self._saved:
            return
        checkpoint = _Checkpoint(
            host_id=self._host_id,
            sequence=self._last.sequence,
            proof=_proof(self._last),
            workers=list(self._workers),
        )
        fresh = self._file.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(checkpoint))
            fresh.replace(self._file)
            self._saved = self._sequence
        except OSError as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            logger.warning("%s cannot be written: %s; the next start reads more", self._file, error)


def _proof(recorded: Recorded) -> str:
    """What tells an event of one log from that of another log in the same place."""
    return " ".join((recorded.subject, recorded.id, recorded.causation_id, str(recorded.time)))
