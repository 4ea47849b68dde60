"""The state of a work item in the log: whether it is still wanted, started, or ended.

A work item states what the scheduler wanted when it was appended. If the worker receives it late
or a second time, the events after it decide. The folds are those of ``abaco_proto``; here they
begin at the work item instead of at the beginning of the history.
"""

import msgspec
from msgspec.structs import replace

from abaco_proto import events as ev
from abaco_proto import execution, worker
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Undecodable
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.names import executions_filter, workers_filter
from abaco_proto.worker import Worker, WorkerStatus

ON_WORKER = (ExecutionStatus.ASSIGNED, ExecutionStatus.RUNNING)


class WorkItemState(msgspec.Struct, frozen=True, kw_only=True):
    """The worker that a work item addresses, and the execution that the worker is to run."""

    attempt: int
    worker: Worker
    execution: Execution

    @property
    def worker_live(self) -> bool:
        """Whether the worker may still append events."""
        return self.worker.live

    @property
    def request_open(self) -> bool:
        """Whether the request for this worker is unanswered."""
        return self.worker.status is WorkerStatus.REQUESTED

    @property
    def run_wanted(self) -> bool:
        """Whether this attempt is the current one, and its worker may report it."""
        current = self.execution.attempt == self.attempt and self.execution.status in ON_WORKER
        return current and self.worker.live

    @property
    def halt_requested(self) -> bool:
        """Whether a person requested a halt."""
        return self.execution.halt_requested

    @property
    def run_started(self) -> bool:
        """Whether the start of this attempt is in the log."""
        return self.execution.status is ExecutionStatus.RUNNING


def initial_state(work_item: Recorded) -> WorkItemState:
    """Return the state if no event has followed the work item.

    Raises:
        Undecodable: the event is not a work item.
    """
    match work_item.event:
        case ev.WorkerRequested():
            return evolve(_before(WorkerStatus.UNKNOWN, work_item.event), work_item)
        case ev.WorkerStopRequested():
            return evolve(_before(WorkerStatus.READY, work_item.event), work_item)
        case ev.ExecutionAssigned() as event:
            submitted = Execution(
                execution_id=event.execution_id,
                actor_id=event.actor_id,
                ordinal=event.ordinal,
                status=ExecutionStatus.SUBMITTED,
                attempt=event.attempt - 1,
            )
            before = _before(WorkerStatus.READY, event)
            return evolve(replace(before, attempt=event.attempt, execution=submitted), work_item)
    raise Undecodable(f"event {work_item.sequence} is not a work item of a host")


def _before(
    status: WorkerStatus, event: ev.WorkerRequested | ev.WorkerStopRequested | ev.ExecutionAssigned
) -> WorkItemState:
    """Return the state just before the work item was appended."""
    addressed = Worker(
        worker_id=event.worker_id, actor_id=event.actor_id, host_id=event.host_id, status=status
    )
    return WorkItemState(attempt=0, worker=addressed, execution=execution.INITIAL)


def evolve(state: WorkItemState, recorded: Recorded) -> WorkItemState:
    """Return the state after one more event."""
    return WorkItemState(
        attempt=state.attempt,
        worker=worker.evolve(state.worker, recorded),
        execution=execution.evolve(state.execution, recorded),
    )


def filters(work_item: Recorded) -> list[str]:
    """Return the subjects of the events that can change the state of a work item."""
    actor_id = getattr(work_item.event, "actor_id", "")
    if isinstance(work_item.event, ev.ExecutionAssigned):
        return [
            executions_filter(work_item.tenant, actor_id),
            workers_filter(work_item.tenant, actor_id),
        ]
    return [workers_filter(work_item.tenant, actor_id)]
