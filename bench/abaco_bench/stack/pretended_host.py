"""A simulated host: it sends heartbeats, its workers are ready at once, and its runs end at once.

So the scheduler has what it needs, and no container takes part in a measurement of the rest.
"""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from abaco_bench.stack.run_events import run_finished, run_started, worker_ready
from abaco_jetstream import Connection, JetStreamEventLog, NatsHeartbeats
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft, format_time
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.names import all_events_filter, host_work_filter

BEAT_SECONDS = 1.0


class PretendedHost:
    """The host ``host_id``, with this many slots."""

    def __init__(self, connection: Connection, host_id: str, capacity: int) -> None:
        """Nothing runs yet."""
        self._log = JetStreamEventLog(connection)
        self._heartbeats = NatsHeartbeats(connection)
        self._sign = Heartbeat(host_id=host_id, capacity=capacity)

    async def run(self) -> None:
        """Beat and answer until cancelled; what was asked for before is not answered."""
        last = await self._log.last(all_events_filter())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            work = [host_work_filter(self._sign.host_id)]
            after = last.sequence if last is not None else 0
            async with aclosing(self._log.follow(work, after=after)) as batches:
                async for batch in batches:
                    for recorded in batch.events:
                        tasks.create_task(self._answer(recorded))

    async def _beat(self) -> None:
        while True:
            await self._heartbeats.send(self._sign)
            await asyncio.sleep(BEAT_SECONDS)

    async def _answer(self, work_item: Recorded) -> None:
        for event in answers(work_item.event):
            answer = draft(
                event, tenant=work_item.tenant, time=datetime.now(UTC), causation_id=work_item.id
            )
            await self._log.append(answer)


def answers(work_item: ev.Event) -> list[ev.Event]:
    """The events with which the host answers a work item."""
    ids: dict[str, Any] = {
        name: getattr(work_item, name, "") for name in ("actor_id", "worker_id", "host_id")
    }
    match work_item:
        case ev.WorkerRequested():
            return [worker_ready(ids, work_item.revision)]
        case ev.WorkerStopRequested():
            return [ev.WorkerStopped(**ids, reason=work_item.reason)]
        case ev.ExecutionAssigned():
            run = {**ids, "execution_id": work_item.execution_id, "attempt": work_item.attempt}
            now = format_time(datetime.now(UTC))
            return [run_started(run, started_at=now, taken_at=now), run_finished(run)]
    return []
