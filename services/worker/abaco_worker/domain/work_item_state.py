"""How a piece of work stands in the log: still wanted, begun already, or over.

Theory: an addressed event is a wish of the moment it was appended. When it arrives late, or for
the second time, what came after it in the log tells what has become of it. The folds are those
of everyone; here they only begin at the wish instead of at the start of history.
"""

import msgspec
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto import execution, worker
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Undecodable
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.subjects import executions_filter, workers_filter
from abaco_proto.worker import Worker, WorkerStatus

WITH_A_WORKER = (ExecutionStatus.ASSIGNED, ExecutionStatus.RUNNING)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the log says of a wish: the seat it is for, and what the seat is to run."""

    attempt: int
    worker: Worker
    execution: Execution

    @property
    def seat_lives(self) -> bool:
        """Whether the seat may go on speaking."""
        return self.worker.live

    @property
    def request_open(self) -> bool:
        """Whether nobody has answered the request for this seat."""
        return self.worker.status is WorkerStatus.REQUESTED

    @property
    def run_wanted(self) -> bool:
        """Whether this attempt is the one that counts, on a seat that may report it."""
        current = self.execution.attempt == self.attempt and self.execution.status in WITH_A_WORKER
        return current and self.worker.live

    @property
    def halt_requested(self) -> bool:
        """Whether a person wants it to end."""
        return self.execution.halt_requested

    @property
    def run_started(self) -> bool:
        """Whether the start of this attempt is in the log."""
        return self.execution.status is ExecutionStatus.RUNNING


def at_once(wish: Recorded) -> Standing:
    """The standing when nothing has happened since the wish.

    Raises:
        Undecodable: the event is no wish to a host.
    """
    match wish.event:
        case ev.WorkerRequested():
            return evolve(_blank(WorkerStatus.UNKNOWN, wish.event), wish)
        case ev.WorkerStopRequested():
            return evolve(_blank(WorkerStatus.READY, wish.event), wish)
        case ev.ExecutionAssigned() as event:
            waiting = Execution(
                execution_id=event.execution_id,
                actor_id=event.actor_id,
                ordinal=event.ordinal,
                status=ExecutionStatus.SUBMITTED,
                attempt=event.attempt - 1,
            )
            blank = _blank(WorkerStatus.READY, event)
            return evolve(replace(blank, attempt=event.attempt, execution=waiting), wish)
    raise Undecodable(f"event {wish.sequence} is no work for a host")


def _blank(
    status: WorkerStatus, event: ev.WorkerRequested | ev.WorkerStopRequested | ev.ExecutionAssigned
) -> Standing:
    """The standing in the moment before a wish."""
    seat = Worker(
        worker_id=event.worker_id, actor_id=event.actor_id, host_id=event.host_id, status=status
    )
    return Standing(attempt=0, worker=seat, execution=execution.INITIAL)


def evolve(standing: Standing, recorded: Recorded) -> Standing:
    """The standing after one more event."""
    return Standing(
        attempt=standing.attempt,
        worker=worker.evolve(standing.worker, recorded),
        execution=execution.evolve(standing.execution, recorded),
    )


def filters(wish: Recorded) -> list[str]:
    """Where to look for what came after a wish."""
    actor_id = getattr(wish.event, "actor_id", "")
    if isinstance(wish.event, ev.ExecutionAssigned):
        return [executions_filter(wish.tenant, actor_id), workers_filter(wish.tenant, actor_id)]
    return [workers_filter(wish.tenant, actor_id)]
