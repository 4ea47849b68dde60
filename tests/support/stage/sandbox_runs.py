"""Runs in sandboxes: real launchers as plain processes, an engine and a log in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import builders as b
from abaco_proto import events as ev
from abaco_worker.domain.sandbox_spec import WorkerKey
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from worker_stage import Stage

KEY = WorkerKey("default", "foo_0", "foo_0_wkr_0")

KINDS = {"sandbox": ev.StartKind.SANDBOX, "container": ev.StartKind.POOL}
"""How a run starts that need not wait for a container, by what each message gets."""


def hurry(monkeypatch: pytest.MonkeyPatch, *, reconnect_seconds: float = 0.1) -> None:
    """Shorten the pauses of a worker, and how long it tries to connect to a launcher again."""
    monkeypatch.setattr("abaco_worker.app.worker_unit.back_off", lambda tries: 0.001)
    monkeypatch.setattr("abaco_worker.sandbox.sandbox_pool.back_off", lambda tries: 0.001)
    monkeypatch.setattr("abaco_worker.app.worker_loop.POOL_CHECK_SECONDS", 0.01)
    monkeypatch.setattr("abaco_worker.runs.disk_limit.MEASURE_SECONDS", 0.01)
    monkeypatch.setattr("abaco_worker.sandbox.sandbox.RECONNECT_SECONDS", reconnect_seconds)
    monkeypatch.setattr("abaco_worker.runs.sandbox_run.RECONNECT_SECONDS", reconnect_seconds)


@contextmanager
def stage_in(folder: Path, isolation: str, *, halt_grace_seconds: float = 5) -> Iterator[Stage]:
    """Yield a stage whose messages get this ``isolation``; its programs end with the block."""
    stage = Stage(
        folder=folder / "worker", halt_grace_seconds=halt_grace_seconds, isolation=isolation
    )
    try:
        yield stage
    finally:
        stage.kill()


async def with_worker(stage: Stage, **definition: object) -> None:
    """The worker foo_0_wkr_0 is ready."""
    await stage.register(**definition)
    await stage.request()
    await stage.until_seen(ev.WorkerReady)


async def run(stage: Stage, ordinal: int, script: str, **changes: object) -> None:
    """Send a message, and assign it to the worker."""
    await stage.append(b.received(ordinal, message=script))
    await stage.assign(ordinal, **changes)


def sandbox_directories(stage: Stage) -> list[SandboxDirectory]:
    """Return the directories of all containers."""
    assert stage.folder is not None
    return [SandboxDirectory(path) for path in stage.folder.iterdir() if path.is_dir()]


def idle_directories(stage: Stage) -> list[str]:
    """Return the names of those that run nothing."""
    return [directory.name for directory in sandbox_directories(stage) if not directory.runs()]


async def until_prewarmed(stage: Stage, count: int = 1) -> None:
    """Wait for ``count`` idle sandboxes and no other container."""
    await stage.until(
        lambda: (
            len(idle_directories(stage))
            == count
            == len(stage.engine.containers)
            == stage.idle_sandboxes()
        )
    )
