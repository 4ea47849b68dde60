"""A worker starts with another launcher than its previous process, or without one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import builders as b
from abaco_proto import events as ev
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from fake_engine import Program
from worker_stage import Stage


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("abaco_worker.app.worker_unit.back_off", lambda tries: 0.001)
    monkeypatch.setattr("abaco_worker.sandbox.sandbox_pool.back_off", lambda tries: 0.001)
    monkeypatch.setattr("abaco_worker.app.worker_loop.POOL_CHECK_SECONDS", 0.01)
    monkeypatch.setattr("abaco_worker.sandbox.sandbox.RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr("abaco_worker.sandbox.container_garbage_collector.EXIT_SECONDS", 0.2)
    caplog.set_level("INFO")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(folder=tmp_path / "worker", halt_grace_seconds=0.2)
    yield stage
    stage.kill()


def folders(stage: Stage) -> list[Path]:
    folder = Path(stage.config.worker_dir) if stage.folder is None else stage.folder
    return [path for path in folder.iterdir() if path.is_dir()]


async def idle(stage: Stage) -> SandboxDirectory:
    """Return the sandbox of an idle worker foo_0_wkr_0, after its process has ended."""
    async with stage.service() as service:
        await stage.register()
        await stage.request()
        await stage.until_seen(ev.WorkerReady)
        await stage.until(lambda: any(worker.pool.idle for worker in service._workers.values()))
        [folder] = folders(stage)
    return SandboxDirectory(folder)


def turn_off(stage: Stage) -> None:
    """Start the next service without a launcher."""
    stage.config = replace(stage.config, launcher="off", worker_dir=str(stage.folder))
    stage.folder = None


def lines(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [message for message in caplog.messages if word in message]


async def test_without_a_launcher_idle_containers_go_with_one_line(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await idle(stage)
    turn_off(stage)
    async with stage.service():
        await stage.until(lambda: not stage.engine.containers and not folders(stage))
    [line] = lines(caplog, "removed")
    assert line.startswith("1 idle sandboxes removed, and 0 runs repeated: ")
    assert line.endswith("ABACO_LAUNCHER is off")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_without_a_launcher_a_run_in_a_sandbox_begins_anew(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage.service():
        await stage.register()
        await stage.request()
        await stage.until_seen(ev.WorkerReady)
        await stage.append(b.received(0, message="echo up; while :; do sleep 0.01; done"))
        await stage.assign()
        await stage.until_seen(ev.ExecutionStarted)
    running = {*stage.engine.containers}
    turn_off(stage)
    async with stage.service():
        await stage.until(lambda: not running & {*stage.engine.containers})
    assert "1 runs repeated" in lines(caplog, "runs repeated")[0]


async def test_with_another_launcher_idle_containers_are_replaced_with_one_line(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    directory = await idle(stage)
    made = directory.read_record()
    assert made is not None
    directory.write_record(replace(made, launcher="abaco-launcher-of-before"))
    async with stage.service() as service:
        await stage.until(lambda: any(worker.pool.idle for worker in service._workers.values()))
        await stage.until(lambda: not directory.path.exists())
    assert lines(caplog, "replaced") == [
        "1 idle sandboxes replaced: the launcher's version has changed"
    ]


async def test_with_a_launcher_what_was_started_without_begins_anew(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    folder, stage.folder = stage.folder, None
    async with stage.service():
        await stage.register()
        await stage.request()
        await stage.send(0, Program(forever=True))
        await stage.assign()
        await stage.until_seen(ev.ExecutionStarted)
    cold = {*stage.engine.containers}
    stage.folder = folder
    async with stage.service():
        await stage.until(lambda: not cold & {*stage.engine.containers})
    assert lines(caplog, "repeated in a sandbox")
