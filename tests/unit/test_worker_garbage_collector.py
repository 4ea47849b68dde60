"""The garbage collector removes containers one after another, and directories concurrently."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from abaco_proto.errors import Unavailable
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.sandbox.container_garbage_collector import (
    ContainerGarbageCollector,
    UnusedContainer,
)
from abaco_worker.sandbox.launcher_client import connect
from deadlines import LIMIT_SECONDS
from launcher_stage import connected, new_directory, process, shell


class Engine:
    """An engine whose removals end when a test releases them."""

    def __init__(self) -> None:
        self.let = asyncio.Semaphore(0)
        self.under_way: list[str] = []
        self.removed: list[str] = []
        self.faults: list[Exception] = []
        self.awaited: list[str] = []
        self.stuck: set[str] = set()
        self.hung: set[str] = set()
        self.hanging: list[str] = []

    async def remove(self, container: str, *, exit_seconds: float) -> None:
        self.under_way.append(container)
        if exit_seconds > 0:
            self.awaited.append(container)
        try:
            await self.let.acquire()
            if self.faults:
                raise self.faults.pop()
            if container in self.hung:
                self.hanging.append(container)
                await asyncio.Event().wait()
            if container in self.stuck:
                raise EngineFault(f"{container}: device or resource busy")
            self.removed.append(container)
        finally:
            self.under_way.remove(container)


@asynccontextmanager
async def collecting(engine: Engine) -> AsyncGenerator[ContainerGarbageCollector, None]:
    port: Any = engine
    garbage_collector = ContainerGarbageCollector(port)
    running = asyncio.create_task(garbage_collector.run())
    try:
        yield garbage_collector
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(check: Any) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not check():
            await asyncio.sleep(0.001)


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    (made / "run").mkdir(parents=True)
    return made


async def test_one_after_another_each_with_its_folder(tmp_path: Path) -> None:
    engine, folders = Engine(), [folder(tmp_path, name) for name in "abc"]
    async with collecting(engine) as garbage_collector:
        for each in folders:
            garbage_collector.collect(UnusedContainer(each.name, each))
        await until(lambda: engine.under_way)
        assert engine.under_way == ["a"]
        assert garbage_collector.backlog == 2
        assert all(each.exists() for each in folders)
        engine.let.release()
        await until(lambda: engine.under_way == ["b"])
        await until(lambda: not folders[0].exists())
        assert folders[1].exists()


async def test_a_launcher_is_told_to_go_and_waited_for_before_the_removal(tmp_path: Path) -> None:
    engine, directory = Engine(), new_directory(tmp_path / "a")
    with process(directory) as program:
        (await connect(directory, 10)).close()
        async with collecting(engine) as garbage_collector:
            garbage_collector.collect(UnusedContainer("a", directory.path))
            await until(lambda: engine.under_way)
            assert program.wait(10) == 0
            assert engine.awaited == ["a"]
            engine.let.release()
            await until(lambda: not directory.path.exists())


async def test_whose_program_still_runs_is_removed_at_once(tmp_path: Path) -> None:
    engine, directory = Engine(), new_directory(tmp_path / "a")
    with process(directory) as program:
        async with connected(directory) as launcher:
            await launcher.launch(shell("sleep 60"))
            await anext(launcher.messages())
            async with collecting(engine) as garbage_collector:
                garbage_collector.collect(UnusedContainer("a", directory.path))
                engine.let.release()
                await until(lambda: engine.removed == ["a"])
        assert engine.awaited == []
        assert program.poll() is None


async def test_a_socket_where_nobody_answers_holds_nothing_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container's root may have replaced the launcher's socket."""
    monkeypatch.setattr("abaco_worker.sandbox.launcher_client.EXIT_SECONDS", 0.05)
    engine, directory = Engine(), new_directory(tmp_path / "a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        folder = os.open(directory.socket_folder, os.O_PATH)
        silent.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
        silent.listen()
        async with collecting(engine) as garbage_collector:
            garbage_collector.collect(UnusedContainer("a", directory.path))
            engine.let.release()
            await until(lambda: engine.removed == ["a"])
    assert engine.awaited == []


async def test_a_slow_folder_holds_up_no_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, let = Engine(), asyncio.Event()

    async def slow(*_: object) -> None:
        await let.wait()

    monkeypatch.setattr("abaco_worker.sandbox.container_garbage_collector.asyncio.to_thread", slow)
    async with collecting(engine) as garbage_collector:
        garbage_collector.collect(UnusedContainer("a", folder(tmp_path, "a")))
        garbage_collector.collect(UnusedContainer("b"))
        engine.let.release()
        engine.let.release()
        await until(lambda: engine.removed == ["a", "b"])
        let.set()


@pytest.mark.parametrize("where", ["container", "folder"])
async def test_what_cannot_be_removed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr("abaco_worker.sandbox.container_garbage_collector.PAUSE_SECONDS", 0.001)
    engine, left = Engine(), folder(tmp_path, "a")
    faults: list[Exception] = []
    (engine.faults if where == "container" else faults).append(
        Unavailable("away") if where == "container" else PermissionError("no")
    )
    to_thread = asyncio.to_thread

    async def remove(function: Any, path: Path) -> None:
        if faults:
            raise faults.pop()
        await to_thread(function, path)

    monkeypatch.setattr(
        "abaco_worker.sandbox.container_garbage_collector.asyncio.to_thread", remove
    )
    async with collecting(engine) as garbage_collector:
        garbage_collector.collect(UnusedContainer("a", left))
        for _ in range(3):
            engine.let.release()
        await until(lambda: not left.exists())
    assert not faults
    assert not engine.faults


async def test_what_cannot_be_removed_holds_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retries have their own queue."""
    monkeypatch.setattr("abaco_worker.sandbox.container_garbage_collector.PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(
        "abaco_worker.sandbox.container_garbage_collector.MAX_PAUSE_SECONDS", 3600.0
    )
    engine = Engine()
    engine.stuck = {"x", "y", "z"}
    async with collecting(engine) as garbage_collector:
        for name in ("x", "y", "z", "a", "b"):
            garbage_collector.collect(UnusedContainer(name))
            engine.let.release()
        await until(lambda: engine.removed == ["a", "b"])
        assert garbage_collector.waiting == 3
        assert garbage_collector.backlog == 0
        garbage_collector.collect(UnusedContainer("x"))
        assert garbage_collector.backlog == 0, "what is to be tried again is not taken twice"


async def test_a_retry_that_takes_for_ever_holds_up_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("abaco_worker.sandbox.container_garbage_collector.PAUSE_SECONDS", 0.001)
    engine = Engine()
    engine.stuck = {"x"}
    async with collecting(engine) as garbage_collector:
        garbage_collector.collect(UnusedContainer("x"))
        engine.let.release()
        await until(lambda: garbage_collector.waiting == 1 and engine.under_way == ["x"])
        engine.hung.add("x")
        engine.let.release()
        await until(lambda: engine.hanging == ["x"])
        garbage_collector.collect(UnusedContainer("a"))
        engine.let.release()
        await until(lambda: engine.removed == ["a"])
