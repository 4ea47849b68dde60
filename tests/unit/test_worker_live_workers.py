"""The live workers are the same from a checkpoint and from the whole log."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import builders as b
from abaco_proto import events as ev
from abaco_proto import worker
from abaco_proto.envelope import Recorded, encode, to_headers
from abaco_proto.errors import Unavailable
from abaco_proto.names import event_subject
from abaco_worker.app.live_workers import FILE, LiveWorkers
from abaco_worker.domain.sandbox_spec import WorkerKey
from fakes import InMemoryEventLog
from worker_stage import Stage

HOSTS = ("h1", "h2")


class Log(InMemoryEventLog):
    """Counts the events that are read; is unavailable once after ``breaks_after`` events."""

    def __init__(self) -> None:
        super().__init__()
        self.read_events = 0
        self.breaks_after: int | None = None

    def add(self, *events: ev.Event) -> None:
        for event in events:
            headers = to_headers(b.envelope_of(event))
            self.put_raw(event_subject("default", event), headers, encode(event))

    async def read(
        self,
        filters: Sequence[str],
        *,
        after: int = 0,
        since: datetime | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        for count, recorded in enumerate(self._select(filters, after)):
            if self.breaks_after == count:
                self.breaks_after = None
                raise Unavailable("unplugged")
            self.read_events += 1
            yield [recorded]


def ended(workers: int) -> list[ev.Event]:
    """Append workers that have ended, on two hosts."""
    events: list[ev.Event] = []
    for number in range(workers):
        at = HOSTS[number % 2]
        requested, ready = b.requested(number, host_id=at), b.ready(number, host_id=at)
        events += [requested, ready, b.stopped(number, host_id=at)]
    return events


async def started(log: Log, host_id: str, folder: Path) -> list[WorkerKey]:
    """Return the live workers at a start, and write the checkpoint."""
    live = LiveWorkers(log, host_id, folder)
    found = await live.start()
    live.save()
    return found


def key(number: int) -> WorkerKey:
    return WorkerKey("default", "foo_0", f"foo_0_wkr_{number}")


@pytest.mark.parametrize("workers", [10, 1000])
async def test_a_start_reads_what_happened_since_the_last_one(workers: int, tmp_path: Path) -> None:
    log = Log()
    log.add(*ended(workers), b.requested(workers), b.requested(workers + 1, host_id="h2"))
    assert await started(log, "h1", tmp_path) == [key(workers)]
    log.read_events = 0
    assert await started(log, "h1", tmp_path) == [key(workers)]
    assert log.read_events == 0
    log.add(b.requested(workers + 2), b.stopped(workers), b.lost(workers + 1, host_id="h2"))
    assert await started(log, "h1", tmp_path) == [key(workers + 2)]
    assert log.read_events == 3


async def test_a_long_uptime_is_not_read_again(tmp_path: Path) -> None:
    log = Log()
    log.add(b.requested(0))
    live = LiveWorkers(log, "h1", tmp_path)
    await live.start()
    log.add(b.requested(1), b.stopped(0))
    assert await live.update() == [key(1)]
    live.save()
    log.read_events = 0
    assert await started(log, "h1", tmp_path) == [key(1)]
    assert log.read_events == 0


@pytest.mark.parametrize("wrong", ["lost", "damaged", "cut off", "another log", "a shorter log"])
async def test_without_a_checkpoint_that_holds_everything_is_read(
    wrong: str, tmp_path: Path
) -> None:
    log, file = Log(), tmp_path / FILE
    log.add(*ended(3), b.requested(3))
    await started(log, "h1", tmp_path)
    match wrong:
        case "lost":
            file.unlink()
        case "damaged":
            file.write_bytes(b"\x00" * 10)
        case "cut off":
            file.write_bytes(file.read_bytes()[:-5])
        case "another log":
            log.events.clear()
            log.add(*ended(3), b.requested(4))
        case "a shorter log":
            log.events.clear()
            log.add(b.requested(4))
    expected = [key(4)] if "log" in wrong else [key(3)]
    assert await started(log, "h1", tmp_path) == expected


async def test_a_checkpoint_of_another_host_is_not_used(tmp_path: Path) -> None:
    log = Log()
    log.add(b.requested(0), b.requested(1, host_id="h2"))
    await started(log, "h1", tmp_path)
    assert await started(log, "h2", tmp_path) == [key(1)]


async def test_a_reading_that_is_broken_off_goes_on_where_it_was(tmp_path: Path) -> None:
    log = Log()
    log.add(*ended(50), b.requested(50))
    log.breaks_after = 40
    assert await started(log, "h1", tmp_path) == [key(50)]
    assert log.read_events == 76, "25 requests on this host, 50 ends, and the live one: each once"


async def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    log = Log()
    log.add(b.requested(0))
    missing = tmp_path / "missing"
    assert await started(log, "h1", missing) == [key(0)]
    assert await started(log, "h1", missing) == [key(0)]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 60), max_size=4))
async def test_it_says_what_the_fold_of_everybody_says(
    seed: int, cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    random, log = Random(seed), Log()
    folder = tmp_path_factory.mktemp("live")
    folds: dict[WorkerKey, worker.Worker] = {}
    requested = 0
    for step in range(60):
        number, at = random.randrange(requested + 1), random.choice(HOSTS)
        if number == requested:
            log.add(b.requested(number, host_id=at))
            requested += 1
        else:
            at = folds[key(number)].host_id
            make: Any = random.choice([b.ready, b.stop_requested, b.stopped, b.failed, b.lost])
            log.add(make(number, host_id=at))
        recorded = log.events[-1]
        number_key = key(number)
        folds[number_key] = worker.evolve(folds.get(number_key, worker.INITIAL), recorded)
        if step in cuts:
            await started(log, "h1", folder)
    expected = {k for k, found in folds.items() if found.live and found.host_id == "h1"}
    assert set(await started(log, "h1", folder)) == expected


async def test_the_service_starts_from_its_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stage = Stage(folder=tmp_path / "worker")
    await stage.register()
    try:
        async with stage.service():
            await stage.request()
            await stage.until_seen(ev.WorkerReady)
        for _ in range(2):
            caplog.clear()
            async with stage.service():
                await stage.until(lambda: "1 live workers restored" in caplog.text)
                await stage.until((tmp_path / "worker" / FILE).exists)
            # Events before the checkpoint are not read again; otherwise there would be no worker.
            nobody = ev.Unrecognized(raw=b"", reason="")
            stage.log.events[1] = replace(stage.log.events[1], event=nobody)
    finally:
        stage.kill()
