"""A stop costs the same however many workers the actor had, and does not depend on Postgres."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import count
from typing import Any

import pytest

import builders as b
from abaco_api.commands import worker_history
from abaco_api.commands.actor_directory import ActorDirectories
from abaco_api.commands.command_handler import CommandHandler
from abaco_api.commands.idempotency import KeyIndex
from abaco_api.commands.worker_commands import WorkerCommands
from abaco_api.domain.commands import StopWorker
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, encode, to_headers
from abaco_proto.errors import Refused, Unavailable, Unknown
from abaco_proto.names import event_subject, worker_id
from abaco_proto.worker import INITIAL, Worker, evolve
from deadlines import LIMIT_SECONDS
from fakes import InMemoryEventLog


class Models:
    """Read models that have folded the log up to ``sequence``; None is that they do not answer."""

    def __init__(self, log: InMemoryEventLog) -> None:
        self.log = log
        self.sequence: int | None = None

    async def worker_at(self, actor_id: str, worker: str) -> tuple[Worker, int]:
        if self.sequence is None:
            raise Unavailable("unplugged")
        found = INITIAL
        for recorded in self.log.events[: self.sequence]:
            if getattr(recorded.event, "worker_id", None) == worker:
                found = evolve(found, recorded)
        return found, self.sequence


class CountingEventLog(InMemoryEventLog):
    """Counts the events that are read; ``pause`` is how long each batch of 100 takes."""

    pause = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.read_events = 0

    async def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        found = self._select(filters, after)
        for at in range(0, len(found), 100):
            await asyncio.sleep(self.pause)
            self.read_events += len(found[at : at + 100])
            yield found[at : at + 100]


class Stage:
    def __init__(self) -> None:
        self.log = CountingEventLog()
        self.models = Models(self.log)
        self.directories = ActorDirectories(self.log)
        self.commands = self.process()

    def process(self) -> WorkerCommands:
        """The command as one process has it."""
        models: Any = self.models
        handler = CommandHandler(self.log, "default", KeyIndex(self.log, 60), seconds=0.5)
        return WorkerCommands(handler, self.log, self.directories.of("default"), models, "default")

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Stage", None]:
        folding = asyncio.create_task(self.directories.run())
        await self.add(b.registered())
        try:
            yield self
        finally:
            folding.cancel()
            await asyncio.wait({folding})

    async def add(self, *events: ev.Event) -> None:
        for event in events:
            headers = to_headers(b.envelope_of(event))
            self.log.put_raw(event_subject("default", event), headers, encode(event))

    async def workers(self, ended: int) -> int:
        """So many workers that have ended, and one that lives; its number."""
        for number in range(ended):
            await self.add(b.requested(number), b.ready(number), b.stopped(number))
        await self.add(b.requested(ended), b.ready(ended))
        return ended

    async def stop(self, number: int, commands: WorkerCommands | None = None) -> int:
        command = StopWorker(actor_id="foo_0", worker_id=worker_id("foo_0", number))
        return await (commands or self.commands).stop(command)

    async def stop_at_last(self, number: int) -> int:
        """Ask again while it is refused for now; how often that was."""
        async with asyncio.timeout(LIMIT_SECONDS):
            for tries in count():
                try:
                    await self.stop(number)
                except Unavailable:
                    continue
                return tries
        raise AssertionError("unreachable")

    def stops(self) -> list[ev.Event]:
        return self.log.bodies(ev.WorkerStopRequested)


@pytest.fixture
async def stage() -> AsyncGenerator[Stage, None]:
    async with Stage().running() as stage:
        yield stage


@pytest.mark.parametrize("ended", [10, 1000])
async def test_a_stop_reads_no_history(stage: Stage, ended: int) -> None:
    last = await stage.workers(ended)
    stage.models.sequence = len(stage.log.events)
    assert await stage.stop(last) == len(stage.log.events)
    with pytest.raises(Refused):
        await stage.stop(0)
    assert len(stage.stops()) == 1
    assert stage.log.read_events <= 1, "its own stop"


async def test_what_the_read_models_do_not_know_yet_is_read(stage: Stage) -> None:
    await stage.workers(5)
    stage.models.sequence = len(stage.log.events)
    await stage.add(b.requested(6), b.requested(7), b.requested(8), b.stopped(7))
    assert await stage.stop(6) == len(stage.log.events)
    with pytest.raises(Refused):
        await stage.stop(7)
    with pytest.raises(Unknown):
        await stage.stop(9)
    assert await stage.stop(6) < len(stage.log.events) + 1
    assert len(stage.stops()) == 1


async def test_of_stops_at_once_through_two_processes_one_is_recorded(stage: Stage) -> None:
    last = await stage.workers(5)
    stage.models.sequence = len(stage.log.events)
    both = (stage.commands, stage.process())
    await asyncio.gather(*[stage.stop(last, commands) for commands in both for _ in range(5)])
    assert len(stage.stops()) == 1


@pytest.mark.parametrize("models", ["away", "far behind"])
async def test_a_long_history_is_read_over_several_requests(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, models: str
) -> None:
    monkeypatch.setattr(worker_history, "MAX_LAG", 1000)
    last = await stage.workers(1000)
    stage.models.sequence = 1 if models == "far behind" else None
    stage.log.pause = 0.05  # 1.5 s for the whole of it; a request has 0.5 s
    assert await stage.stop_at_last(last) > 0
    assert len(stage.stops()) == 1
    assert stage.log.read_events <= 3010, "no event is read twice"
    stage.log.pause = 0
    with pytest.raises(Refused):
        await stage.stop_at_last(0)
    with pytest.raises(Unknown):
        await stage.stop_at_last(last + 1)
