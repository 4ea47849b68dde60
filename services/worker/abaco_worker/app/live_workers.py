"""The live workers of this host, folded from the log, with a checkpoint in the worker's folder.

The subject of a request contains the host, but that of a worker's end does not. So the ends of all
hosts are read. The checkpoint has the result of the fold up to one event. It only saves time: if
it is lost, damaged, or of another log, the whole history is read.
"""

import asyncio
import logging
from contextlib import aclosing, suppress
from pathlib import Path

import msgspec

from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.names import all_of_type_filter, host_requests_filter
from abaco_worker.app.waiting import retry_log
from abaco_worker.domain.sandbox_spec import WorkerKey

logger = logging.getLogger(__name__)

FILE = "live-workers"

CHECKPOINT_SECONDS = 60.0
"""The interval between checkpoints: a start reads at most the events of about this time."""

ENDS = (ev.WorkerStopped, ev.WorkerFailed, ev.WorkerLost)


class _Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The live workers after one event; ``proof`` identifies the event among those of all logs."""

    host_id: str
    sequence: int
    proof: str
    workers: list[WorkerKey]


class LiveWorkers:
    """The live workers of one host up to one event."""

    def __init__(self, log: EventLog, host_id: str, folder: Path) -> None:
        self._log = log
        self._host_id = host_id
        self._file = folder / FILE
        self._filters = [
            host_requests_filter(host_id),
            *(all_of_type_filter(kind) for kind in ENDS),
        ]
        self._workers: dict[WorkerKey, None] = {}  # in the order of their requests
        self._last: Recorded | None = None
        self._saved_sequence = 0

    async def start(self) -> list[WorkerKey]:
        """Load the checkpoint, read the events after it, and return the live workers."""
        await self._load()
        return await self.update()

    async def run(self) -> None:
        """Write a checkpoint periodically, without end."""
        while True:
            self.save()
            await asyncio.sleep(CHECKPOINT_SECONDS)
            await self.update()

    async def update(self) -> list[WorkerKey]:
        """Read new events, through any outage of the log, and return the live workers."""
        await retry_log(self._read_new_events)
        return list(self._workers)

    @property
    def _sequence(self) -> int:
        return self._last.sequence if self._last is not None else 0

    async def _read_new_events(self) -> None:
        async with aclosing(self._log.read(self._filters, after=self._sequence)) as batches:
            async for batch in batches:
                for recorded in batch:
                    self._apply(recorded)

    def _apply(self, recorded: Recorded) -> None:
        self._last = recorded
        event = recorded.event
        match event:
            case ev.WorkerRequested() if event.host_id == self._host_id:
                self._workers[WorkerKey(recorded.tenant, event.actor_id, event.worker_id)] = None
            case ev.WorkerStopped() | ev.WorkerFailed() | ev.WorkerLost():
                key = WorkerKey(recorded.tenant, event.actor_id, event.worker_id)
                self._workers.pop(key, None)

    # -- the checkpoint ------------------------------------------------------------------------

    async def _load(self) -> None:
        try:
            checkpoint = msgspec.json.decode(self._file.read_bytes(), type=_Checkpoint)
        except (OSError, msgspec.DecodeError):
            logger.info("no checkpoint of this host's workers; reading their whole history")
            return
        last = await retry_log(lambda: self._log.at(checkpoint.sequence))
        if checkpoint.host_id != self._host_id or last is None or _proof(last) != checkpoint.proof:
            logger.warning(
                "checkpoint %s is of another log or host, and is not used; reading the whole"
                " history. Nothing to do if ABACO_HOST_ID or the log was changed on purpose",
                self._file,
            )
            return
        self._last, self._saved_sequence = last, last.sequence
        self._workers = dict.fromkeys(checkpoint.workers)

    def save(self) -> None:
        """Write the checkpoint, if there are new events."""
        if self._last is None or self._sequence == self._saved_sequence:
            return
        checkpoint = _Checkpoint(
            host_id=self._host_id,
            sequence=self._last.sequence,
            proof=_proof(self._last),
            workers=list(self._workers),
        )
        new = self._file.with_suffix(".new")
        try:
            new.write_bytes(msgspec.json.encode(checkpoint))
            new.replace(self._file)
            self._saved_sequence = self._sequence
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            logger.warning(
                "checkpoint %s was not written: %s. The next start takes longer; make"
                " ABACO_WORKER_DIR writable, or free disk space",
                self._file,
                error,
            )


def _proof(recorded: Recorded) -> str:
    """Return what identifies an event among those of all logs with the same sequence."""
    return " ".join((recorded.subject, recorded.id, recorded.causation_id, str(recorded.time)))
