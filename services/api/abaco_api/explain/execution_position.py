"""Where an execution is in its course now, and what it waits for. Pure.

The reasons follow the order in which the scheduler decides: first what ends a run or keeps its
actor from working, then the workers there are, then the capacity of the hosts for another.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from abaco_api.explain.event_sentences import ending
from abaco_api.explain.explain_results import StandingResult
from abaco_proto import events as ev
from abaco_proto.actor import Actor, ActorStatus
from abaco_proto.envelope import Recorded, format_time
from abaco_proto.execution import Execution, ExecutionStatus
from abaco_proto.state_keys import WorkerKey
from abaco_proto.worker import Worker, WorkerStatus


class HostCapacity(msgspec.Struct, frozen=True):
    """How many workers the hosts may have, and how many they have, by host."""

    capacity: dict[str, int]
    workers: Mapping[str, int]

    @property
    def free(self) -> int:
        """How many more workers the hosts may have."""
        taken = self.workers
        return sum(max(0, most - taken.get(host, 0)) for host, most in self.capacity.items())


class HostFold:
    """A fold of the events of hosts, and of the workers of all tenants, which share them."""

    def __init__(self) -> None:
        self._capacity: dict[str, int] = {}
        self._hosts: dict[WorkerKey, str] = {}

    def take(self, recorded: Recorded) -> None:
        """Take in one more event."""
        event = recorded.event
        match event:
            case ev.HostJoined():
                self._capacity[event.host_id] = event.capacity
            case ev.HostLost():
                self._capacity.pop(event.host_id, None)
            case ev.WorkerRequested():
                self._hosts[recorded.tenant, event.worker_id] = event.host_id
            case ev.WorkerFailed() | ev.WorkerStopped() | ev.WorkerLost():
                self._hosts.pop((recorded.tenant, event.worker_id), None)

    def result(self, workers: Mapping[str, int] | None = None) -> HostCapacity:
        """The capacity after these events, with ``workers`` by host if that is known otherwise."""
        counted = Counter(self._hosts.values()) if workers is None else workers
        return HostCapacity(self._capacity, counted)


class Backlog(msgspec.Struct, frozen=True):
    """The actor's other executions: how many wait before this one, and one that is at work."""

    ahead: int
    running: str | None


def backlog_of(execution: Execution, others: Iterable[Execution]) -> Backlog:
    """The backlog among ``others``, the actor's other executions that have not ended."""
    running = [e.execution_id for e in others if e.status in BUSY]
    waiting = [e.ordinal for e in others if e.status is ExecutionStatus.SUBMITTED]
    ahead = sum(ordinal < execution.ordinal for ordinal in waiting)
    return Backlog(ahead, running[0] if running else None)


def position(
    execution: Execution,
    actor: Actor,
    workers: Sequence[Worker],
    backlog: Backlog,
    hosts: HostCapacity,
) -> StandingResult:
    """Where an execution is; ``workers`` are those of its actor."""
    if execution.ended:
        return _ended(execution)
    if execution.status is ExecutionStatus.RUNNING:
        return _running(execution)
    if execution.status is ExecutionStatus.ASSIGNED:
        where = f"worker {execution.worker_id} on host {execution.host_id}"
        return _waits("assigned", f"It is with {where}, which has not started it yet.")
    return _submitted(execution, actor, workers, backlog, hosts)


def _ended(execution: Execution) -> StandingResult:
    state = execution.final_state
    match execution.status:
        case ExecutionStatus.COMPLETE if state is not None:
            reason = state.ended_by.value if state.ended_by is not ev.EndedBy.ITSELF else "exit"
            return _end(reason, f"It ran to its end: {ending(state)}.")
        case ExecutionStatus.HALTED:
            why = f": {execution.status_message}" if execution.status_message else ""
            return _end("halted", f"A person halted it{why}.")
        case ExecutionStatus.PURGED:
            return _end("purged", f"It never ran: {execution.status_message}.")
    return _end("abandoned", f"It was given up: {execution.status_message}.")


def _running(execution: Execution) -> StandingResult:
    since = f"since {format_time(execution.started_at)}" if execution.started_at else ""
    where = f"on host {execution.host_id} {since}".strip()
    if execution.halt_requested:
        return StandingResult(
            state="runs", reason="halting", says=f"It runs {where}, and is to end: {HALT}."
        )
    return StandingResult(state="runs", reason="running", says=f"It runs {where}.")


HALT = "a person wants it halted"


def _submitted(
    execution: Execution,
    actor: Actor,
    workers: Sequence[Worker],
    backlog: Backlog,
    hosts: HostCapacity,
) -> StandingResult:
    again = f" {execution.status_message}." if execution.status_message else ""
    if not actor.definition.stateless and backlog.running is not None:
        what = f"the actor has a state and runs one message at a time: {backlog.running} is at work"
        return _waits("actor_busy", f"It waits: {what}.{again}")
    live = [w for w in workers if w.live and w.revision == actor.revision]
    reason, what = _of_workers(live, backlog.ahead) or _of_hosts(actor, hosts)
    return _waits(reason, f"It waits: {what}.{again}")


BUSY = (ExecutionStatus.ASSIGNED, ExecutionStatus.RUNNING)


def _of_workers(live: Sequence[Worker], ahead: int) -> tuple[str, str] | None:
    """What it waits for if there are workers."""
    by = {s: [w for w in live if w.status is s] for s in WorkerStatus}
    if by[WorkerStatus.READY]:
        return "its_turn", f"a worker is idle, and {_messages(ahead)} ahead of it"
    if by[WorkerStatus.REQUESTED]:
        worker = by[WorkerStatus.REQUESTED][0]
        since = format_time(worker.requested_at)
        what = f"worker {worker.worker_id} on host {worker.host_id} is starting since {since}"
        return "worker_starting", what
    if by[WorkerStatus.BUSY]:
        count = len(by[WorkerStatus.BUSY])
        busy = "its worker is busy" if count == 1 else f"all {count} workers are busy"
        return "workers_busy", f"{busy}, and {_messages(ahead)} ahead of it"
    return None


def _of_hosts(actor: Actor, hosts: HostCapacity) -> tuple[str, str]:
    """What it waits for if there is no worker."""
    if actor.status is ActorStatus.ERROR:
        since = format_time(actor.updated_at)
        what = f"the image could not be made ready ({actor.status_message})"
        return "back_off", f"{what} at {since}, and is tried again after a pause"
    if not hosts.capacity:
        return "no_host", "no host takes work"
    if not hosts.free:
        taken = hosts.workers
        each = [f"{h} has {taken.get(h, 0)} of {n} slots in use" for h, n in hosts.capacity.items()]
        return "no_room", f"no host has room: {', '.join(each)}"
    return "no_worker", "there is no worker, and a host has room for one"


def _messages(count: int) -> str:
    return "1 message is" if count == 1 else f"{count or 'no'} messages are"


def _waits(reason: str, says: str) -> StandingResult:
    return StandingResult(state="waits", reason=reason, says=says)


def _end(reason: str, says: str) -> StandingResult:
    return StandingResult(state="ended", reason=reason, says=says)
