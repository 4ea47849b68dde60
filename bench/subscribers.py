"""Five hundred subscribers of one api process, ten of them stalled: what the others get, and when.

    python bench/subscribers.py [subscribers] [stalled] [events a second] [seconds]

Events are appended to a NATS server with ``sync_interval: always`` at a steady pace. Subscribers
are bare sockets in processes of their own; each notes when it got each event. A delivery takes
from just before the append to the arrival at the subscriber; all clocks are this machine's. The
stalled ones read nothing after the head of the answer. Prints JSON, and writes it to
``build/bench/subscribers.json``.
"""

import asyncio
import json
import multiprocessing as mp
import re
import resource
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, cast

import msgspec
import psutil
import uvloop

import abaco_bench  # noqa: F401 - first: it adds tests/support to the path
import builders as b
from abaco_jetstream import Connection, JetStreamEventLog
from api_stage import Api, running
from servers import LOOPBACK, NatsServer, scratch_folder

NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"
RESULT = Path(__file__).resolve().parents[1] / "build" / "bench" / "subscribers.json"
CONTEXT = mp.get_context("spawn")
PROCESSES = 2
ORDINAL = re.compile(rb'"ordinal":(\d+),')
MESSAGE = "x" * 200
TIMEOUT_SECONDS = 60.0


class Subscriber(asyncio.Protocol):
    """A connection that notes when each event came, by the ordinal of its message."""

    def __init__(self, *, stalled: bool) -> None:
        self.stalled = stalled
        self.arrived: list[tuple[int, float]] = []
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for everything from now on."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            b"GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        """Note what came."""
        now = time.time()
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 200"), data
            self.opened.set_result(None)
            if self.stalled and self._transport is not None:
                self._transport.pause_reading()
        data = self._rest + data
        end = 0
        for found in ORDINAL.finditer(data):
            self.arrived.append((int(found[1]), now))
            end = found.end()
        self._rest = data[max(end, len(data) - 40) :]

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()


async def subscribe(port: int, count: int, stalled: int, wanted: int, pipe: Pipe) -> None:
    """One process of subscribers: ready, then when each event came to each who reads."""
    loop = asyncio.get_running_loop()
    subscribers = [Subscriber(stalled=n < stalled) for n in range(count)]
    for subscriber in subscribers:
        await loop.create_connection(lambda s=subscriber: s, LOOPBACK, port)  # type: ignore[misc]
        await subscriber.opened
    pipe.send("ready")
    healthy = [s for s in subscribers if not s.stalled]
    deadline = loop.time() + TIMEOUT_SECONDS
    while min(len(s.arrived) for s in healthy) < wanted and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    pipe.send([s.arrived for s in healthy])
    for subscriber in subscribers:
        subscriber.close()


def process(port: int, count: int, stalled: int, wanted: int, pipe: Pipe) -> None:
    """The whole of such a process."""
    uvloop.run(subscribe(port, count, stalled, wanted, pipe))


async def write(url: str, wanted: int, per_second: int) -> list[float]:
    """Append at a steady pace, whatever comes back when; when each append began."""
    connection = Connection(url, name="bench", timeout=30)
    await connection.open()
    log, begun = JetStreamEventLog(connection), [0.0] * wanted

    async def one(ordinal: int) -> None:
        begun[ordinal] = time.time()
        await log.append(b.envelope_of(b.received(ordinal, "bench_0", MESSAGE)))

    clock = asyncio.get_running_loop().time
    start, tasks = clock(), []
    for ordinal in range(wanted):
        await asyncio.sleep(max(0.0, start + ordinal / per_second - clock()))
        tasks.append(asyncio.create_task(one(ordinal)))
    await asyncio.gather(*tasks)
    await connection.close()
    return begun


class Memory:
    """The most memory a process was seen to have."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.before = process.memory_info().rss
        self.most = self.before

    async def watch(self) -> None:
        """Look ten times a second."""
        while True:
            self.most = max(self.most, self._process.memory_info().rss)
            await asyncio.sleep(0.1)


class Load(msgspec.Struct, frozen=True):
    """The options of the command line."""

    subscribers: int = 500
    stalled: int = 10
    per_second: int = 50
    seconds: int = 20


async def measure(nats: NatsServer, api: Api, load: Load) -> dict[str, Any]:
    """All figures."""
    wanted = load.per_second * load.seconds
    shares = [load.subscribers // PROCESSES] * PROCESSES
    asleep = [load.stalled // PROCESSES] * PROCESSES
    pipes, children = [], []
    memory = Memory(psutil.Process(api_pid(api)))
    for share, sleepers in zip(shares, asleep, strict=True):
        here, there = CONTEXT.Pipe()
        child = CONTEXT.Process(
            target=process, args=(api.port, share, sleepers, wanted, there), daemon=True
        )
        child.start()
        pipes.append(here)
        children.append(child)
    for pipe in pipes:
        assert await asyncio.to_thread(pipe.recv) == "ready"
    watching = asyncio.create_task(memory.watch())
    begun = await write(nats.url, wanted, load.per_second)
    arrived = [one for pipe in pipes for one in await asyncio.to_thread(pipe.recv)]
    watching.cancel()
    for child in children:
        child.join()
    whole = sum([n for n, _ in one] == list(range(wanted)) for one in arrived)
    delays = sorted((at - begun[n]) * 1000 for one in arrived for n, at in one)
    centiles = statistics.quantiles(delays, n=100)
    return {
        "subscribers": sum(shares),
        "stalled": sum(asleep),
        "events": wanted,
        "events_per_second": load.per_second,
        "got_every_event_once_in_order": whole,
        "delivery_ms": {
            "p50": round(centiles[49], 1),
            "p99": round(centiles[98], 1),
            "most": round(delays[-1], 1),
        },
        "api_memory_mb": {
            "before": round(memory.before / 1e6),
            "most": round(memory.most / 1e6),
        },
    }


def api_pid(api: Api) -> int:
    """The process of an api."""
    assert api._process is not None  # noqa: SLF001
    return api._process.pid  # noqa: SLF001


def main() -> None:
    """Print the figures as JSON."""
    load = Load(*map(int, sys.argv[1:]))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with scratch_folder() as folder, tempfile.TemporaryDirectory() as logs:
        nats = NatsServer(folder)
        nats.start()
        api = Api(Path(logs), nats.url, NO_DATABASE, stream_write_seconds=2)
        try:
            with running(api):
                figures = uvloop.run(measure(nats, api, load))
        finally:
            nats.kill()
    text = json.dumps(figures, indent=2) + "\n"
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
