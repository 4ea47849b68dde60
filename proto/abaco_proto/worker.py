"""The worker: takes one slot of a host, and runs the messages of one actor, one at a time.

The scheduler requests a worker from a host (REQUESTED). The host makes it READY, or it is FAILED.
With an assignment it is BUSY until the execution ends. After a stop request it is STOPPING until it
is idle, then STOPPED. The workers of a host without heartbeats are LOST. FAILED, STOPPED and LOST
are final: a worker id is used once.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto.envelope import EPOCH, Recorded

# -- state ---------------------------------------------------------------------------------------


class WorkerStatus(StrEnum):
    """The status of a worker."""

    __hash__ = str.__hash__  # the fast hash: every event looks up the table

    UNKNOWN = "UNKNOWN"
    REQUESTED = "REQUESTED"
    READY = "READY"
    BUSY = "BUSY"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    LOST = "LOST"


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """The fold of a worker's history. ``execution_id`` is the execution that it runs now.

    ``isolation`` is None until it is ready, and if its event is an older one.
    ``requested_sequence`` is that of the event that requested it, ``ended_sequence`` that of the
    event that ended it; 0 before it.
    """

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
    isolation: ev.Isolation | None = None
    isolation_reason: str = ""
    execution_id: str | None = None
    requested_at: datetime = EPOCH
    updated_at: datetime = EPOCH
    requested_sequence: int = 0
    ended_sequence: int = 0

    @property
    def live(self) -> bool:
        """Whether it takes a slot on its host."""
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
"""An event that is not in the table changes nothing."""

# -- fold ----------------------------------------------------------------------------------------


def evolve(worker: Worker, recorded: Recorded) -> Worker:
    """The worker after one more event. Never raises; an event that does not apply is ignored."""
    event = recorded.event
    status = TRANSITIONS.get((worker.status, ev.type_of(event)))
    if status is None or not _concerns(worker, event):
        return worker
    changes = _changes(event, recorded)
    if status not in LIVE:
        changes["ended_sequence"] = recorded.sequence
    return replace(worker, status=status, updated_at=recorded.time, **changes)


def _changes(event: ev.Event, recorded: Recorded) -> dict[str, Any]:
    """The fields that an event changes, except the status."""
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
                "requested_sequence": recorded.sequence,
            }
        case ev.WorkerReady():
            return {
                "image": event.image,
                "image_digest": event.image_digest,
                "location": event.location,
                "container_id": event.container_id,
                "isolation": None if event.isolation is UNSET else event.isolation,
                "isolation_reason": (
                    "" if event.isolation_reason is UNSET else event.isolation_reason
                ),
            }
    return {}


def _concerns(worker: Worker, event: ev.Event) -> bool:
    """Whether the event is about this worker, or about the execution that it runs."""
    match event:
        case ev.ExecutionStarted() | ev.ExecutionFinished() | ev.ExecutionFailed():
            running = event.execution_id == worker.execution_id
            return event.worker_id == worker.worker_id and running
        case ev.ExecutionAbandoned():
            return event.execution_id == worker.execution_id
        case ev.WorkerRequested():
            return True
    return getattr(event, "worker_id", None) == worker.worker_id
