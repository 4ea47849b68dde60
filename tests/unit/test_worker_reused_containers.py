"""A container that stays runs one message after another: real launchers, an engine in memory."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import builders as b
from abaco_proto import events as ev
from abaco_worker.app.adoption import list_containers
from abaco_worker.app.host_context import HostContext
from abaco_worker.domain.container_labels import assignment_key
from abaco_worker.domain.engine_values import LabelledContainer
from abaco_worker.domain.run_request import SandboxLimits
from abaco_worker.domain.sandbox_record import SandboxAssignment
from abaco_worker.sandbox.launcher_client import LauncherClient, connect
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from abaco_worker.sandbox.sandbox_store import sandbox_hindrance
from disks import Disk, small_disk
from fake_engine import IMAGE
from launcher_stage import SECONDS, new_directory, process, shell
from sandbox_runs import (
    KEY,
    hurry,
    run,
    sandbox_directories,
    stage_in,
    until_prewarmed,
    with_worker,
)
from worker_stage import Stage

STEADY = SandboxLimits()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, reconnect_seconds=0.2)
    monkeypatch.setattr("abaco_worker.sandbox.container_garbage_collector.EXIT_SECONDS", 0.2)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stage_in(tmp_path, "sandbox") as stage:
        yield stage


def starts(stage: Stage) -> list[tuple[str, ev.StartKind]]:
    return [(e.container_id, e.start_kind) for e in stage.seen(ev.ExecutionStarted)]


# -- the container stays


async def test_messages_run_one_after_another_in_one_container(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        for ordinal in range(5):
            await run(stage, ordinal, f"echo {ordinal}; exit {ordinal}")
            await stage.until_seen(ev.ExecutionFinished, ordinal + 1)
        await until_prewarmed(stage)
    assert [e.exit_code for e in stage.seen(ev.ExecutionFinished)] == list(range(5))
    assert [stage.output(f"foo_0_exc_{n}") for n in range(5)] == [b"%d\n" % n for n in range(5)]
    assert starts(stage) == [("c0", ev.StartKind.SANDBOX)] * 5
    assert stage.seen(ev.WorkerReady)[0].isolation is ev.Isolation.SANDBOX
    assert stage.engine.starts == [sandbox_directories(stage)[0].name]


async def test_the_files_of_a_run_are_removed_when_its_result_is_in_the_log(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "echo up; exec sleep 60")
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"up\n")
        [directory] = sandbox_directories(stage)
        [files] = directory.runs()
        assert files.output.read_bytes() == b"up\n"
        await stage.append(b.halt_requested())
        await stage.until_seen(ev.ExecutionFinished)
        await stage.until(lambda: not files.path.exists())


async def test_an_actor_that_wants_containers_gets_them(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage, isolation="container")
        for ordinal in range(2):
            await until_prewarmed(stage)
            await run(stage, ordinal, "exit 0")
            await stage.until_seen(ev.ExecutionFinished, ordinal + 1)
    assert starts(stage) == [("c0", ev.StartKind.POOL), ("c1", ev.StartKind.POOL)]


async def test_a_privileged_actor_shares_no_container(tmp_path: Path) -> None:
    stage = Stage(folder=tmp_path / "worker", isolation="sandbox", allow_privileged=True)
    try:
        async with stage.service():
            await with_worker(stage, privileged=True)
            for ordinal in range(2):
                await until_prewarmed(stage)
                await run(stage, ordinal, "exit 0")
                await stage.until_seen(ev.ExecutionFinished, ordinal + 1)
        assert [container for container, _ in starts(stage)] == ["c0", "c1"]
        assert "privileged" in stage.seen(ev.WorkerReady)[0].isolation_reason
    finally:
        stage.kill()


# -- and is replaced


async def test_an_update_during_a_run_replaces_the_container_after_it(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "echo up; sleep 0.2; exit 3")
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"up\n")
        updated = await stage.append(b.updated(revision=1, image=IMAGE, mem_limit=7 * 2**20))
        await stage.until(lambda: len(stage.engine.containers) == 2)
        await stage.until_seen(ev.ExecutionFinished)
        await until_prewarmed(stage)
        await run(stage, 1, "exit 0", actor_sequence=updated)
        await stage.until_seen(ev.ExecutionFinished, 2)
    assert [e.exit_code for e in stage.seen(ev.ExecutionFinished)] == [3, 0]
    assert [container for container, _ in starts(stage)] == ["c0", "c1"]


async def test_an_update_from_before_the_start_costs_one_container(stage: Stage) -> None:
    """A worker that restarts receives no earlier update; it learns it from the next run."""
    async with stage.service():
        await with_worker(stage)
    updated = await stage.append(b.updated(revision=1, image=IMAGE, mem_limit=7 * 2**20))
    async with stage.service() as service:
        await stage.until(lambda: KEY in service._workers)
        for ordinal in range(3):
            await run(stage, ordinal, "exit 0", actor_sequence=updated)
            await stage.until_seen(ev.ExecutionFinished, ordinal + 1)
        await until_prewarmed(stage)
    assert starts(stage)[1:] == [("c1", ev.StartKind.SANDBOX)] * 2


async def test_a_container_from_before_an_update_is_not_adopted_after_a_run(stage: Stage) -> None:
    """The run comes while the worker still looks for what its previous process has left."""
    async with stage.service():
        await with_worker(stage)
    updated = await stage.append(b.updated(revision=1, image=IMAGE, mem_limit=7 * 2**20))
    await run(stage, 0, "exit 0", actor_sequence=updated)
    async with stage.service():
        await stage.until_seen(ev.ExecutionFinished)
        for ordinal in range(1, 4):
            await run(stage, ordinal, "exit 0", actor_sequence=updated)
            await stage.until_seen(ev.ExecutionFinished, ordinal + 1)
        await until_prewarmed(stage)
    assert starts(stage)[2:] == [("c1", ev.StartKind.SANDBOX)] * 2


async def test_a_launcher_that_cleans_up_for_too_long_is_replaced(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: LauncherClient) -> None:
        await asyncio.Event().wait()

    async with stage.service():
        await with_worker(stage)
        monkeypatch.setattr("abaco_worker.sandbox.sandbox.IDLE_SECONDS", 0.05)
        with monkeypatch.context() as slow:
            slow.setattr(LauncherClient, "wait_idle", never)
            await run(stage, 0, "exit 0")
            await run(stage, 1, "exit 1")
            await stage.until_seen(ev.ExecutionFinished)
            await stage.until(lambda: "c1" in stage.engine.containers)
        await stage.until_seen(ev.ExecutionFinished, 2)
        await until_prewarmed(stage)
    assert [container for container, _ in starts(stage)] == ["c0", "c1"]
    assert not stage.seen(ev.ExecutionFailed)


async def test_a_container_that_exits_during_a_run_ends_that_attempt_alone(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "exec sleep 60")
        await stage.until_seen(ev.ExecutionStarted)
        stage.engine.containers["c0"].kill()
        await stage.until_seen(ev.ExecutionFailed)
        await until_prewarmed(stage)
        await stage.assign(0, attempt=2)
        await stage.until(lambda: len(stage.seen(ev.ExecutionStarted)) == 2)
        stage.engine.containers["c1"].kill()
        await stage.until_seen(ev.ExecutionFailed, 2)
    assert starts(stage)[1] == ("c1", ev.StartKind.SANDBOX)


async def test_a_host_that_cannot_make_sandboxes_makes_containers_and_warns_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.refuses_sandboxes = True
    async with stage.service():
        await with_worker(stage)
        for ordinal in range(3):
            await until_prewarmed(stage)
            await run(stage, ordinal, "exit 0")
            await stage.until_seen(ev.ExecutionFinished, ordinal + 1)
    assert len({container for container, _ in starts(stage)}) == 3
    assert {kind for _, kind in starts(stage)} == {ev.StartKind.POOL}
    [ready] = stage.seen(ev.WorkerReady)
    assert (ready.isolation, "no sandboxes here" in ready.isolation_reason) == ("container", True)
    [line] = [line for line in caplog.messages if "gets a container of its own" in line]
    assert "no sandboxes here" in line


@pytest.mark.parametrize(
    ("release", "possible"),
    [("5.11.22", False), ("5.12", True), ("6.18.1-arch", True), ("4.19", False), ("?", False)],
)
def test_kernels(release: str, possible: bool) -> None:  # noqa: FBT001
    assert (sandbox_hindrance(release) == "") is possible


# -- restarts of the worker


async def until_idle(directory: SandboxDirectory) -> None:
    """Wait until the launcher has ended what it ran."""
    idle = False
    while not idle:
        launcher = await connect(directory, SECONDS)
        idle = await launcher.read_greeting(stays=True)
        launcher.close()
        await asyncio.sleep(0.01)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "worker", 2) as disk:
        yield disk


async def test_a_run_that_ends_on_a_full_disk_without_a_worker_is_not_repeated(
    disk: Disk, stage: Stage, tmp_path: Path
) -> None:
    """The report cannot be written; the launcher keeps it."""
    go, ran = tmp_path / "go", tmp_path / "ran"
    async with stage.service():
        await with_worker(stage)
        words = f"echo ran >>{ran}; until [ -e {go} ]; do sleep 0.01; done; exit 6"
        await run(stage, 0, words)
        await stage.until_seen(ev.ExecutionStarted)
        [directory] = sandbox_directories(stage)
        [files] = directory.runs()
    disk.fill()
    go.touch()
    await until_idle(directory)
    assert files.read_report() is None
    async with stage.service():
        stage.queue.redeliver_unsettled()
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        await until_prewarmed(stage)
    assert finished.exit_code == 6
    assert ran.read_text() == "ran\n"
    assert stage.engine.starts == [directory.name]


async def test_a_run_that_was_stored_and_not_sent_begins(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The worker is killed between the record and the request."""
    stored = asyncio.Event()

    async def launch(*_: Any) -> None:
        stored.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as killed:
        killed.setattr(LauncherClient, "launch", launch)
        # The check of the image passed before.
        killed.setattr("abaco_worker.sandbox.sandbox_store.SandboxStore._check", _nothing)
        async with stage.service():
            await with_worker(stage)
            await run(stage, 0, f"echo ran >>{tmp_path}/ran; exit 4")
            await stored.wait()
    async with stage.service():
        stage.queue.redeliver_unsettled()
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        await until_prewarmed(stage)
    assert finished.exit_code == 4
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert starts(stage)[0][0] == "c0"


async def _nothing(*_: Any) -> None:
    return None


async def test_a_run_that_is_over_leaves_its_container_to_the_worker(stage: Stage) -> None:
    """The worker is killed after the result is in the log, and before the files are removed."""
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "exit 0")
        await stage.until_seen(ev.ExecutionFinished)
        await until_prewarmed(stage)
        [directory] = sandbox_directories(stage)
    assigned = next(r for r in stage.log.events if isinstance(r.event, ev.ExecutionAssigned))
    key = assignment_key(assigned)
    left = directory.run(key, stays=True)
    left.begin(SandboxAssignment(key=key, start_kind=ev.StartKind.SANDBOX, taken_at=""))
    async with stage.service() as service:
        await stage.until(lambda: not left.path.exists())
        await stage.until(
            lambda: KEY in service._workers and service._workers[KEY].pool.idle is not None
        )
        await run(stage, 1, "exit 1")
        await stage.until_seen(ev.ExecutionFinished, 2)
    assert starts(stage) == [("c0", ev.StartKind.SANDBOX)] * 2


async def test_a_resumed_run_gives_its_container_back(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, f"until [ -e {go} ]; do sleep 0.01; done; exit 6")
        await stage.until_seen(ev.ExecutionStarted)
    async with stage.service() as service:
        await stage.until(lambda: service._restored)
        stage.queue.redeliver_unsettled()
        go.touch()
        await stage.until_seen(ev.ExecutionFinished)
        await run(stage, 1, "exit 7")
        await stage.until_seen(ev.ExecutionFinished, 2)
        await until_prewarmed(stage)
    assert [e.exit_code for e in stage.seen(ev.ExecutionFinished)] == [6, 7]
    assert [container for container, _ in starts(stage)] == ["c0", "c0"]
    assert len(stage.engine.starts) == 1


# -- halts that come late


async def test_a_container_that_a_run_has_resumed_is_not_removed_as_a_found_one(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends while the worker still looks for what its previous process has left."""
    go, listed = tmp_path / "go", asyncio.Event()

    async def slow(host: HostContext) -> Sequence[LabelledContainer]:
        await listed.wait()
        return await list_containers(host)

    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, f"echo up; until [ -e {go} ]; do sleep 0.01; done")
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"up\n")
    monkeypatch.setattr("abaco_worker.app.adoption.list_containers", slow)
    async with stage.service() as service:
        stage.queue.redeliver_unsettled()
        go.touch()
        await stage.until_seen(ev.ExecutionFinished)
        await until_prewarmed(stage)
        listed.set()
        await stage.until(lambda: service._restored)
        await run(stage, 1, "exit 0")
        await stage.until_seen(ev.ExecutionFinished, 2)
        await until_prewarmed(stage)
        assert service._host.garbage_collector.waiting == 0
    assert starts(stage) == [("c0", ev.StartKind.SANDBOX)] * 2
    assert list(stage.engine.containers) == ["c0"]


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.01])
async def test_a_late_halt_ends_no_later_run(tmp_path: Path, delay: float) -> None:
    directory = new_directory(tmp_path / "p")
    with process(directory, "again"):
        launcher = await connect(directory, SECONDS)
        assert await launcher.read_greeting(stays=True)
        for number in range(30):
            first = directory.run(f"{number}-first", stays=True)
            first.path.mkdir(parents=True)
            await launcher.launch(shell("exit 3", sandbox=STEADY), first)
            await asyncio.sleep(delay)  # the halt comes before, at, or after its end
            await launcher.halt(first)
            await launcher.wait_for_report(first)
            await launcher.wait_idle()
            second = directory.run(f"{number}-second", stays=True)
            second.path.mkdir()
            await launcher.launch(shell("read x </dev/null; exit 7", sandbox=STEADY), second)
            report = await launcher.wait_for_report(second)
            assert (report.exit_code, report.halted) == (7, False)
            await launcher.wait_idle()
        launcher.close()


async def test_a_halt_by_another_connection_ends_no_later_run(tmp_path: Path) -> None:
    """The connection of a worker that was killed is read after that of its successor."""
    directory = new_directory(tmp_path / "p")
    with process(directory, "again"):
        old = await connect(directory, SECONDS)
        assert await old.read_greeting(stays=True)
        new = await connect(directory, SECONDS)
        assert await new.read_greeting(stays=True)
        for number in range(20):
            first = directory.run(f"{number}-first", stays=True)
            first.path.mkdir(parents=True)
            await new.launch(shell("exit 3", sandbox=STEADY), first)
            await new.wait_for_report(first)
            second = directory.run(f"{number}-second", stays=True)
            second.path.mkdir()
            await new.launch(shell("sleep 0.01; exit 7", sandbox=STEADY), second)
            await old.halt(first)
            report = await new.wait_for_report(second)
            assert (report.exit_code, report.halted) == (7, False)
        old.close()
        new.close()
