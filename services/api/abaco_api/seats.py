"""Seats: the command that gives one up."""

from abaco_api.appender import Appender, request_id
from abaco_api.decide import decide_stop
from abaco_api.directory import Directory
from abaco_api.queries import ReadModels
from abaco_api.turns import Turns
from abaco_api.worker_history import Seen, WorkerHistory
from abaco_proto.commands import StopWorker
from abaco_proto.errors import Conflict
from abaco_proto.log import EventLog


class Seats:
    """Decides on a worker's own history."""

    def __init__(
        self, log: EventLog, directory: Directory, models: ReadModels, tenant: str, turns: Turns
    ) -> None:
        self._directory = directory
        self._turns = turns
        self._appender = Appender(log, tenant)
        self._history = WorkerHistory(log, models, tenant)

    async def stop(self, command: StopWorker) -> int:
        """Ask for the end of a seat; the sequence of the order, or of what made it needless."""
        cause = request_id()
        seen = await self._history.seen(command.actor_id, command.worker_id)
        async with self._turns.turn(f"workers of {command.actor_id}"):
            await self._directory.find(command.actor_id)
            while True:
                try:
                    return await self._stop(command, seen, cause)
                except Conflict:
                    continue

    async def _stop(self, command: StopWorker, seen: Seen | None, cause: str) -> int:
        """Without a condition: the id of the event lets one such order in, and one that comes too
        late changes nothing.
        """
        worker, head = await self._history.worker(command.actor_id, command.worker_id, seen)
        for event in decide_stop(worker, command):
            head = (await self._appender.append(event, None, cause)).sequence
        return head
