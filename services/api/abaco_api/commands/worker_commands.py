"""The command that stops a worker."""

import msgspec

from abaco_api.commands.actor_directory import ActorDirectory
from abaco_api.commands.command_handler import Cause, CommandHandler
from abaco_api.commands.worker_history import ProjectedWorker, WorkerHistory
from abaco_api.domain.commands import StopWorker
from abaco_api.domain.decide import decide_stop
from abaco_api.queries.read_models import ReadModels
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.names import stop_requests_filter
from abaco_proto.worker import Worker, evolve


class WorkerState(msgspec.Struct, frozen=True):
    """A worker, and the sequence of the last event that its state includes."""

    worker: Worker
    head: int


class WorkerCommands:
    """Stops workers."""

    def __init__(
        self,
        handler: CommandHandler,
        log: EventLog,
        directory: ActorDirectory,
        models: ReadModels,
        tenant: str,
    ) -> None:
        self._handler = handler
        self._directory = directory
        self._history = WorkerHistory(log, models, tenant)
        self._tenant = tenant

    async def stop(self, command: StopWorker, cause: Cause | None = None) -> int:
        """Request the end of a worker; the sequence of the request, or of an earlier end."""
        projected = await self._history.projected(command.actor_id, command.worker_id)
        history = StopHistory(self._history, self._directory, self._tenant, command, projected)
        executed = await self._handler.execute(
            history, lambda state: decide_stop(state.worker, command), cause
        )
        return executed.state.head


class StopHistory:
    """What the stop of a worker is decided on."""

    def __init__(
        self,
        workers: WorkerHistory,
        directory: ActorDirectory,
        tenant: str,
        command: StopWorker,
        projected: ProjectedWorker | None,
    ) -> None:
        self._workers = workers
        self._directory = directory
        self._command = command
        self._projected = projected
        self.queue_key = f"workers of {command.actor_id}"
        self.key_filter = stop_requests_filter(tenant, command.actor_id)

    async def load(self) -> WorkerState:
        """See ``History``."""
        command = self._command
        await self._directory.find(command.actor_id)
        return WorkerState(
            *await self._workers.worker(command.actor_id, command.worker_id, self._projected)
        )

    async def reload(self, _: WorkerState) -> WorkerState:
        """See ``History``."""
        return await self.load()

    async def head(self, state: WorkerState) -> int:
        """See ``History``."""
        return state.head

    def expected(self, _: WorkerState, __: ev.Event) -> None:
        """None: the event's id admits one stop per worker, and a late one changes nothing."""

    def evolve(self, state: WorkerState, recorded: Recorded) -> WorkerState:
        """See ``History``."""
        return WorkerState(evolve(state.worker, recorded), recorded.sequence)
