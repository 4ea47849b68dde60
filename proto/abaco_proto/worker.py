"""The worker: one seat for an actor on a host, able to run one message at a time.

Theory: the scheduler asks a host for a seat (REQUESTED); the host makes it READY or says why not
(FAILED). An assignment makes it BUSY until that execution ends. A seat that is given up is
STOPPING until it is idle, then STOPPED; the seats of a host that went silent are LOST. The last
three and FAILED are final: a worker id is never used again.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, Recorded

# -- state ---------------------------------------------------------------------------------------


class WorkerStatus(StrEnum):
    """Where a worker stands."""

    __hash__ = str.__hash__  # as quick as a text's: every event asks the table

    UNKNOWN = "UNKNOWN"
    REQUESTED = "REQUESTED"
    READY = "READY"
    BUSY = "BUSY"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    LOST = "LOST"


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """The fold of a worker's history. ``execution_id`` is what it runs now."""

    worker_id: str = ""
    actor_id: str = ""
    host_id: str = ""
    status: WorkerStatus = WorkerStatus.UNKNOWN
    status_message: str = ""
    revision: int = 0
    image: str = ""
    image_digest: str = ""
    location: str = ""
    container_id: str | None = None
    execution_id: str | None = None
    requested_at: datetime = EPOCH
    updated_at: datetime = EPOCH

    @property
    def live(self) -> bool:
        """Whether it takes a seat on its host."""
        return self.status in LIVE


INITIAL = Worker()

_N, _Q, _R = WorkerStatus.UNKNOWN, WorkerStatus.REQUESTED, WorkerStatus.READY
_B, _G, _S = WorkerStatus.BUSY, WorkerStatus.STOPPING, WorkerStatus.STOPPED
_F, _L = WorkerStatus.FAILED, WorkerStatus.LOST

LIVE = frozenset({_Q, _R, _B, _G})

# -- transitions ---------------------------------------------------------------------------------

TRANSITIONS: dict[tuple[WorkerStatus, str], WorkerStatus] = {
    (_N, "worker.requested"): _Q,
    (_Q, "worker.ready"): _R,
    (_R, "execution.assigned"): _B,
    (_B, "execution.started"): _B,
    (_G, "execution.started"): _G,
    (_B, "execution.finished"): _R,
    (_G, "execution.finished"): _G,
    (_B, "execution.failed"): _R,
    (_G, "execution.failed"): _G,
    (_B, "execution.abandoned"): _R,
    (_G, "execution.abandoned"): _G,
    **{(status, "worker.stop_requested"): _G for status in (_Q, _R, _B)},
    **{(status, "worker.stopped"): _S for status in (_Q, _R, _B, _G)},
    **{(status, "worker.failed"): _F for status in (_Q, _R, _B, _G)},
    **{(status, "worker.lost"): _L for status in (_Q, _R, _B, _G)},
}
"""What is not in the table does not happen."""

# -- fold ----------------------------------------------------------------------------------------


def evolve(worker: Worker, recorded: Recorded) -> Worker:
    """The worker after one more event. Total: what does not fit leaves it as it is."""
    event = recorded.event
    status = TRANSITIONS.get((worker.status, ev.type_of(event)))
    if status is None or not _concerns(worker, event):
        return worker
    said = _said(event, recorded)
    return replace(worker, status=status, updated_at=recorded.time, **said)


def _said(event: ev.Event, recorded: Recorded) -> dict[str, Any]:
    """What an event says of a worker beside its status."""
    match event:
        case ev.ExecutionAssigned():
            return {"execution_id": event.execution_id}
        case ev.ExecutionStarted():
            return {"container_id": event.container_id}
        case ev.ExecutionFinished() | ev.ExecutionFailed() | ev.ExecutionAbandoned():
            return {"execution_id": None}
        case ev.WorkerStopRequested() | ev.WorkerStopped() | ev.WorkerFailed() | ev.WorkerLost():
            return {"status_message": event.reason}
        case ev.WorkerRequested():
            return {
                "worker_id": event.worker_id,
                "actor_id": event.actor_id,
                "host_id": event.host_id,
                "revision": event.revision,
                "status_message": event.reason,
                "requested_at": recorded.time,
            }
        case ev.WorkerReady():
            return {
                "image": event.image,
                "image_digest": event.image_digest,
                "location": event.location,
                "container_id": event.container_id,
            }
    return {}


def _concerns(worker: Worker, event: ev.Event) -> bool:
    """Whether the event is about this worker, or about what it runs."""
    match event:
        case ev.ExecutionStarted() | ev.ExecutionFinished() | ev.ExecutionFailed():
            running = event.execution_id == worker.execution_id
            return event.worker_id == worker.worker_id and running
        case ev.ExecutionAbandoned():
            return event.execution_id == worker.execution_id
        case ev.WorkerRequested():
            return True
    return getattr(event, "worker_id", None) == worker.worker_id
