"""Seats: the command that gives one up."""

from contextlib import aclosing

from abaco_api.appender import Appender, request_id
from abaco_api.decide import decide_stop
from abaco_api.directory import Directory
from abaco_api.turns import Turns
from abaco_proto import events as ev
from abaco_proto.commands import StopWorker
from abaco_proto.errors import Conflict
from abaco_proto.log import EventLog, Expected
from abaco_proto.subjects import workers_filter
from abaco_proto.worker import INITIAL, Worker, evolve


class Seats:
    """Decides on a worker's own history, read from the log for the occasion."""

    def __init__(self, log: EventLog, directory: Directory, tenant: str, turns: Turns) -> None:
        self._log = log
        self._directory = directory
        self._tenant = tenant
        self._turns = turns
        self._appender = Appender(log, tenant)

    async def stop(self, command: StopWorker) -> int:
        """Ask for the end of a seat; the sequence of the order, or of what made it needless."""
        cause = request_id()
        async with self._turns.turn(f"workers of {command.actor_id}"):
            await self._directory.find(command.actor_id)
            while True:
                try:
                    return await self._stop(command, cause)
                except Conflict:
                    continue

    async def _stop(self, command: StopWorker, cause: str) -> int:
        worker, head = await self._worker(command)
        for event in decide_stop(worker, command):
            expected = Expected(
                filter=workers_filter(self._tenant, command.actor_id), sequence=head
            )
            head = (await self._appender.append(event, expected, cause)).sequence
        return head

    async def _worker(self, command: StopWorker) -> tuple[Worker, int]:
        worker, head = INITIAL, 0
        history = self._log.read([workers_filter(self._tenant, command.actor_id)])
        async with aclosing(history) as batches:
            async for batch in batches:
                for recorded in batch:
                    head = recorded.sequence
                    if _names(recorded.event, command.worker_id):
                        worker = evolve(worker, recorded)
        return worker, head


def _names(event: ev.Event, worker_id: str) -> bool:
    return getattr(event, "worker_id", None) == worker_id
