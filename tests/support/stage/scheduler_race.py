"""Schedulers that run on one log, and a count of their attempts to append worker requests."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import builders as b
from abaco_jetstream.ports import Batch, EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import Draft, Expected, Recorded
from abaco_proto.heartbeat import Heartbeat
from abaco_scheduler.app.scheduler_loop import Scheduler
from abaco_scheduler.app.snapshot_manager import SnapshotManager
from abaco_scheduler.domain.policy import Policy
from fakes import InMemoryHeartbeats, InMemorySnapshots

HOST = "h1"


class CountingEventLog:
    """An ``EventLog`` that counts the attempts to append a request for a worker."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.attempts = 0

    async def append(self, draft: Draft, *, expected: Expected | None = None) -> int:
        self.attempts += isinstance(draft.event, ev.WorkerRequested)
        return await self.log.append(draft, expected=expected)

    def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        return self.log.read(filters, after=after, since=since, headers_only=headers_only)

    def follow(self, filters: Sequence[str], *, after: int = 0) -> AsyncGenerator[Batch, None]:
        return self.log.follow(filters, after=after)

    async def last(self, filter: str) -> Recorded | None:  # noqa: A002 - the word of the port
        return await self.log.last(filter)

    async def at(self, sequence: int) -> Recorded | None:
        return await self.log.at(sequence)


@asynccontextmanager
async def schedulers(
    log: EventLog, count: int, *, capacity: int
) -> AsyncGenerator[CountingEventLog, None]:
    """Run schedulers on one log. All receive the heartbeats of one host with ``capacity`` slots."""
    counting, heartbeats = CountingEventLog(log), InMemoryHeartbeats()
    connected: Any = SimpleNamespace(connected_since=0.0)
    running = [
        asyncio.create_task(
            Scheduler(
                counting,
                heartbeats,
                connected,
                Policy(),
                "default",
                snapshots=SnapshotManager(InMemorySnapshots(), log, code_digest="this"),
            ).run()
        )
        for _ in range(count)
    ]
    running.append(asyncio.create_task(_beat(heartbeats, capacity)))
    try:
        yield counting
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _beat(heartbeats: InMemoryHeartbeats, capacity: int) -> None:
    while True:
        await heartbeats.send(Heartbeat(host_id=HOST, capacity=capacity))
        await asyncio.sleep(0.2)


async def requests_for_new_actors(log: EventLog, actors: int, *, racing: int = 1) -> int:
    """How many attempts it takes until each of so many new actors has one worker requested."""
    names = [f"new_{number}" for number in range(actors)]
    for at in range(0, actors, 250):
        await asyncio.gather(
            *[
                log.append(b.envelope_of(b.registered(name, min_workers=1)))
                for name in names[at : at + 250]
            ]
        )
    requested: list[str] = []
    async with schedulers(log, racing, capacity=actors) as counting:
        async with asyncio.timeout(120):
            async for batch in log.follow(["abaco.event.*.*.worker.requested.*"]):
                requested += [getattr(recorded.event, "actor_id", "") for recorded in batch.events]
                if len(requested) >= actors:
                    break
    assert sorted(requested) == sorted(names)
    return counting.attempts
