"""The four services, each a process of its own, and when each of them is ready.

A service is ready when it could do what it is there for:

* the api when ``/readyz`` says so: it knows all actors, and the read models are up to date;
* the projector when an event that was appended while it was away is in the read models;
* the scheduler when its view of the cluster has caught up with the log: it decides from then on;
* the worker when it knows which of its workers are alive; it takes work before that.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import psutil

from abaco_bench.stack.prepared import Servers
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamSnapshots
from abaco_proto import events as ev
from abaco_proto.envelope import draft
from abaco_proto.envelope import parse_time as time_of
from abaco_scheduler.app.snapshot_manager import SNAPSHOT_NAME as SNAPSHOT
from api_stage import Api, Process
from projection import reached

LOOK_SECONDS = 0.01
TIMEOUT_SECONDS = 300.0
CAUGHT_UP = "caught up at event"
RESTORED = "live workers restored"

Ready = Callable[[Process], Awaitable[None]]


class Services:
    """Starts them one after the other, and knows their memory."""

    def __init__(self, servers: Servers, folder: Path, connection: Connection) -> None:
        """Nothing runs yet."""
        self._servers = servers
        self._folder = folder
        self._log = JetStreamEventLog(connection)
        self._snapshots = JetStreamSnapshots(connection)
        self._appended = 0
        self.running: dict[str, Process] = {}
        self.api = Api(folder, servers.nats.url, servers.dsn)

    async def start(self, name: str) -> float:
        """Start one of them anew; the seconds until it is ready."""
        before = self.running.get(name)
        if before is not None:
            before.stop()
        prepared, ready = await self._how(name)
        begun = time.perf_counter()
        self.running[name] = prepared
        Process.start(prepared)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await ready(prepared)
        return time.perf_counter() - begun

    async def _how(self, name: str) -> tuple[Process, Ready]:
        url, dsn = self._servers.nats.url, self._servers.dsn
        match name:
            case "projector":
                await self._append_something()
                return self._process(name, nats_url=url, postgres_dsn=dsn), self._projected
            case "api":
                return self.api, self._answers
            case "scheduler":
                return self._process(name, nats_url=url), _said(CAUGHT_UP)
        settings = {"host_id": "h2", "worker_dir": self._folder / "worker", "pull_policy": "never"}
        return self._process("worker", nats_url=url, **settings), _said(RESTORED)

    def _process(self, name: str, **settings: object) -> Process:
        return Process(f"abaco_{name}", self._folder, **settings)

    async def _append_something(self) -> None:
        """An event that no service acts on."""
        event = ev.HostJoined(host_id="h1", capacity=1)
        drafted = draft(
            event, tenant="default", time=time_of(""), causation_id="req-0", position=self._appended
        )
        self._appended = await self._log.append(drafted)

    async def _projected(self, _: Process) -> None:
        await reached(self._servers.dsn, self._appended, look_seconds=LOOK_SECONDS)

    async def _answers(self, _: Process) -> None:
        async with httpx.AsyncClient(base_url=self.api.url) as client:
            while True:
                try:
                    if (await client.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(LOOK_SECONDS)

    async def snapshot(self) -> None:
        """Wait until the scheduler has put away a snapshot."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while await self._snapshots.get(SNAPSHOT) is None:  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(LOOK_SECONDS)

    def memory(self) -> dict[str, float]:
        """The resident memory of each service, with its children, and of the log's server; MB."""
        pids = {name: process.pid for name, process in self.running.items()}
        pids["nats-server"] = self._servers.nats.pid
        return {name: _megabytes(pid) for name, pid in pids.items()}

    def stop(self) -> None:
        """Stop them all."""
        for process in self.running.values():
            process.kill()


def _said(words: str) -> Ready:
    async def ready(process: Process) -> None:
        while words not in process.log:  # noqa: ASYNC110 - a file has no event to wait for
            await asyncio.sleep(LOOK_SECONDS)

    return ready


def _megabytes(pid: int) -> float:
    one = psutil.Process(pid)
    return sum(p.memory_info().rss for p in (one, *one.children(recursive=True))) / 1e6
