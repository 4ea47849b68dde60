"""Processes of the api and the projector over real servers, for the tests of the api."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from deadlines import LIMIT_SECONDS
from servers import LOOPBACK, NatsServer, PostgresServer, free_port, scratch_folder

Json = dict[str, Any]

START_SECONDS = LIMIT_SECONDS


class Process:
    """A service in a process of its own."""

    def __init__(self, module: str, folder: Path, **settings: Any) -> None:
        self._module = module
        self._log = folder / f"{module}-{id(self)}.log"
        self._settings = {f"ABACO_{name.upper()}": str(value) for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ABACO_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env={**kept, **self._settings},
                stdout=log,
                stderr=log,
            )

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Until it ends by itself; the exit status."""
        assert self._process is not None
        return self._process.wait(10)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


class Api(Process):
    """An api process on a free port."""

    def __init__(self, folder: Path, nats_url: str, dsn: str, **settings: Any) -> None:
        self.port = free_port()
        self.nats_url = nats_url
        self.dsn = dsn
        self.url = f"http://{LOOPBACK}:{self.port}"
        values = {"nats_url": nats_url, "postgres_dsn": dsn, "api_port": self.port, **settings}
        super().__init__("abaco_api", folder, **values)

    def start(self) -> None:
        """Start, and wait until it answers."""
        super().start()
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/healthz").status_code == 200:
                    return
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)


def projector(folder: Path, nats_url: str, dsn: str) -> Process:
    return Process("abaco_projector", folder, nats_url=nats_url, postgres_dsn=dsn)


async def eventually(
    condition: Callable[[], Awaitable[bool]], seconds: float = LIMIT_SECONDS
) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.03)


async def becomes_ready(client: httpx.AsyncClient, seconds: float = LIMIT_SECONDS) -> None:
    async def ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await eventually(ready, seconds)


def error_of(answer: httpx.Response, status: int) -> Json:
    """The body of an error, checked to be one."""
    body: Json = answer.json()
    assert answer.status_code == status, (answer.status_code, body)
    assert set(body) == {"status", "msg", "error", "result", "version"}
    assert body["status"] == "error"
    assert body["result"] is None
    assert body["error"]
    return body


def result_of(answer: httpx.Response, status: int = 200) -> Any:
    """The result of an answer that must have worked."""
    body: Json = answer.json()
    assert answer.status_code == status, (answer.status_code, body)
    assert set(body) == {"status", "msg", "result", "version"}
    assert body["status"] == "success"
    return body["result"]


@contextmanager
def running(*processes: Process) -> Iterator[None]:
    """The processes, from here to the end of the block."""
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            process.kill()


@contextmanager
def whole_stage(postgres: PostgresServer, database: str, **settings: Any) -> Iterator[Api]:
    """An api with all it needs: a log, read models, and a projector between them."""
    with scratch_folder() as folder:
        nats = NatsServer(folder)
        dsn = postgres.create_database(database)
        api = Api(folder, nats.url, dsn, **settings)
        try:
            nats.start()
            with running(projector(folder, nats.url, dsn), api):
                yield api
        finally:
            nats.kill()
