"""A worker process with real servers, and the scheduler's events."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import docker

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamOutputLog
from abaco_jetstream.retry import append_until_stored
from abaco_proto import events as ev
from abaco_proto.errors import Unavailable
from abaco_proto.names import all_events_filter
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from deadlines import LIMIT_SECONDS
from integration.worker_images import DockerYard, docker_yard

T = TypeVar("T", bound=ev.Event)


IN_A_LOGIN_SESSION = (
    "/bin/sh",
    "-c",
    '{ echo 0 >/proc/self/loginuid; } 2>/dev/null; exec "$@"',
    "sh",
)
"""As a worker that somebody starts by hand is in one."""


class WorkerProcess:
    """``python -m abaco_worker``, which tests stop or kill."""

    def __init__(self, nats_url: str, host_id: str, log: Path, **settings: str) -> None:
        settings = {"ABACO_NETWORK_MODE": "none", **settings}
        folder = str(log.with_name("worker"))
        ours = {"ABACO_NATS_URL": nats_url, "ABACO_HOST_ID": host_id, "ABACO_WORKER_DIR": folder}
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [*IN_A_LOGIN_SESSION, sys.executable, "-m", "abaco_worker"],
                env={**os.environ, **ours, **settings},
                stderr=file,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """Return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=60)


MODES = ("sandbox", "container", "cold")
"""A message gets a sandbox, a container that waited for it, or one that the engine starts then."""


class World:
    """A log, an engine and one host; ``start`` starts its worker process."""

    def __init__(
        self, connection: Connection, nats_url: str, yard: DockerYard, log: Path, mode: str
    ) -> None:
        self.log = JetStreamEventLog(connection)
        self.outputs = JetStreamOutputLog(connection)
        self.yard = yard
        self._url = nats_url
        self._file = log
        cold = {"ABACO_LAUNCHER": "off", "ABACO_ISOLATION": "container"}
        self._settings = cold if mode == "cold" else {"ABACO_ISOLATION": mode}
        self._docker = docker.APIClient(version="auto")
        self._workers: list[WorkerProcess] = []

    def start(self, **settings: str) -> WorkerProcess:
        settings = {**self._settings, **settings}
        worker = WorkerProcess(self._url, self.yard.host_id, self._file, **settings)
        self._workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._docker.close()

    def said(self) -> str:
        """Return the log lines of its worker processes."""
        return self._file.read_text(errors="replace")

    # -- the scheduler's events

    async def append(self, event: ev.Event) -> int:
        return await append_until_stored(self.log, b.envelope_of(event), after=0)

    async def worker(self, image: str | None = None, number: int = 0, **definition: Any) -> int:
        """Append an actor and a request for a worker; return the sequence of the definition."""
        event = b.registered(image=image or self.yard.image, **definition)
        sequence = await self.append(event)
        await self.request(sequence, number)
        return sequence

    async def request(self, sequence: int, number: int = 0) -> None:
        host_id = self.yard.host_id
        await self.append(b.requested(number, host_id=host_id, actor_sequence=sequence))

    async def send(
        self, script: str, ordinal: int = 0, number: int = 0, attempt: int = 1, **assigned: Any
    ) -> None:
        """Append a message and its assignment to a worker."""
        sequence = await self.append(b.received(ordinal, message=script))
        await self.append(
            b.assigned(
                ordinal,
                message_sequence=sequence,
                host_id=self.yard.host_id,
                worker_id=f"foo_0_wkr_{number}",
                attempt=attempt,
                **assigned,
            )
        )

    # -- what can be seen

    async def seen(self, kind: type[T], count: int = 1) -> list[T]:
        """Wait for ``count`` events of a kind, and return them."""

        async def enough() -> list[T] | None:
            batches = [batch async for batch in self.log.read([all_events_filter()])]
            found = [r.event for batch in batches for r in batch if isinstance(r.event, kind)]
            return found if len(found) >= count else None

        found: list[T] = await self.until(enough)
        return found

    async def until(self, look: Callable[[], Awaitable[Any]]) -> Any:
        """Call ``look`` until it returns something, and return that."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                if found := await look():
                    return found
            except Unavailable:
                pass
            assert time.monotonic() < deadline, self._file.read_text()
            await asyncio.sleep(0.02)

    async def output(self, finished: ev.ExecutionFinished) -> bytes:
        """Return the recorded output of a finished attempt."""
        whole = bytearray()
        async with asyncio.timeout(LIMIT_SECONDS), aclosing(self.outputs.follow()) as batches:
            async for batch in batches:
                for output in (chunk.output for chunk in batch.chunks):
                    if output.execution_id == finished.execution_id:
                        assert output.offset <= len(whole), "a gap"
                        whole[output.offset : output.offset + len(output.data)] = output.data
                if batch.pending == 0:
                    return bytes(whole)
        raise AssertionError("a follower never ends")

    async def until_recorded(self, text: bytes, ordinal: int = 0) -> None:
        """Wait until a run's output contains a text."""
        run = b.finished(ordinal)

        async def holds() -> bool:
            return text in await self.output(run)

        await self.until(holds)

    def containers(self) -> list[Any]:
        label = {"label": [f"abaco.host_id={self.yard.host_id}"]}
        return list(self._docker.containers(all=True, filters=label))

    def inside(self, container_id: str) -> tuple[list[str], dict[str, str]]:
        """Return the environment and the labels of a container."""
        config = self._docker.inspect_container(container_id)["Config"]
        return config["Env"] or [], config["Labels"]

    @property
    def folder(self) -> Path:
        """Return the folder of the sandbox directories."""
        return self._file.with_name("worker")

    def waiting(self) -> list[Any]:
        """Return the idle sandboxes."""
        return [
            container
            for container in self.containers()
            if (directory := self.folder / container["Names"][0].lstrip("/")).is_dir()
            and not SandboxDirectory(directory).runs()
        ]

    async def until_clean(self, waiting: int = 0) -> None:
        """Wait until only ``count`` idle sandboxes are left."""

        async def clean() -> bool:
            return len(self.containers()) == len(self.waiting()) == waiting

        await self.until(clean)


@asynccontextmanager
async def world_on(nats_url: str, folder: Path, mode: str) -> AsyncGenerator[World, None]:
    """A world with its own images; its processes and containers are removed afterwards.

    ``mode`` is one of :data:`MODES`.
    """
    connection = Connection(nats_url, name="test")
    with docker_yard() as yard:
        await connection.open()
        world = World(connection, nats_url, yard, folder / "worker.log", mode)
        try:
            yield world
        finally:
            world.close()
            await connection.close()
