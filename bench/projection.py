"""Events a second into the read models: live and by a rebuild, beside the raw ceiling.

    python bench/projection.py [events] [actors]

All in one run, one after the other, on servers of its own: NATS as shipped but for the writing of
the history itself, Postgres as shipped. The ceiling is nats-py's ordered consumer draining the
stream while asyncpg COPYs what came (sequence, subject, headers, bytes) into a plain table without
a key: nothing is decoded, folded, hashed or indexed. ``live`` is a projector that starts at the
beginning, ``rebuild`` the command, ``verify`` its sibling; their time includes their start. Memory
is the peak of a process and of the one that reads for it, together; beside it the same for the
first tenth of the history.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import asyncpg
import nats
import uvloop
from nats.aio.msg import Msg

import abaco_bench  # noqa: F401 - first: it adds tests/support to the path
from abaco_jetstream import Connection
from abaco_proto import streams
from abaco_proto.envelope import Draft
from histories import history, write
from servers import NatsServer, PostgresServer, scratch_folder

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "bench"
EVENTS, ACTORS = 200_000, 2000
PEAK_SECONDS = 0.1
Row = tuple[float, float]
"""Events a second, and the peak of memory in MB."""


class Lazy(NatsServer):
    """A server that syncs now and then: the history is written once, and can be made again."""

    def __init__(self, folder: Path) -> None:
        """As shipped, otherwise."""
        super().__init__(folder)
        text = self.config.read_text().replace("sync_interval: always", 'sync_interval: "2m"')
        self.config.write_text(text)


class Shipped(PostgresServer):
    """A server that syncs, as the stack's does."""

    def argv(self) -> list[str]:
        """The command line."""
        return [word.replace("fsync=off", "fsync=on") for word in super().argv()]


async def fill(url: str, drafts: Iterator[Draft]) -> float:
    """Write a history, or more of it; events a second."""
    connection = Connection(url, name="bench", timeout=30)
    await connection.open()
    begun = time.perf_counter()
    count = await write(connection, drafts)
    await connection.close()
    return count / (time.perf_counter() - begun)


async def ceiling(url: str, dsn: str, events: int) -> float:
    """Drain and COPY, nothing else; events a second."""
    client = await nats.connect(url)
    table = await asyncpg.connect(dsn)
    await table.execute("CREATE TABLE raw (seq bigint, subject text, headers text, body bytea)")
    rows: list[tuple[int, str, str, bytes]] = []
    arrived = asyncio.Event()

    async def take(message: Msg) -> None:
        sequence = int(message.reply.split(".")[5])
        rows.append((sequence, message.subject, str(message.headers), message.data))
        arrived.set()

    begun, count = time.perf_counter(), 0
    await client.jetstream().subscribe(
        "abaco.event.>",
        stream=streams.EVENTS.name,
        ordered_consumer=True,
        cb=take,
        pending_msgs_limit=-1,
        pending_bytes_limit=-1,
    )
    while count < events:
        await arrived.wait()
        arrived.clear()
        batch, rows[:] = rows[:], []
        await table.copy_records_to_table("raw", records=batch)
        count += len(batch)
    spent = time.perf_counter() - begun
    await client.close()
    await table.execute("DROP TABLE raw")
    await table.close()
    return events / spent


def process(nats_url: str, dsn: str, *words: str) -> "subprocess.Popen[bytes]":
    """A process of ours at these servers."""
    environ = {**os.environ, "ABACO_NATS_URL": nats_url, "ABACO_POSTGRES_DSN": dsn}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", *words], env=environ, **quiet)  # type: ignore[call-overload,no-any-return]


async def reached(dsn: str, events: int, *, look_seconds: float = 0.1) -> None:
    """Until the checkpoint is there."""
    query = "SELECT sequence FROM projection_checkpoints WHERE name = 'events'"
    table = await asyncpg.connect(dsn)
    while True:
        try:
            if (await table.fetchval(query) or 0) >= events:
                break
        except asyncpg.UndefinedTableError:
            pass
        await asyncio.sleep(look_seconds)
    await table.close()


class Peak(threading.Thread):
    """The most memory so far of a process and of those it started, each at its own worst."""

    def __init__(self, pid: int) -> None:
        """Look until :meth:`megabytes` is asked for."""
        super().__init__(daemon=True)
        self._pid = pid
        self._found: dict[str, int] = {}
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        """Sample repeatedly: a process that has ended cannot be measured any more."""
        while not self._over.wait(PEAK_SECONDS):
            with suppress(OSError, IndexError):  # it ended, or has just been started
                self._look()

    def _look(self) -> None:
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        for pid in (str(self._pid), *children):
            status = Path(f"/proc/{pid}/status").read_text()
            self._found[pid] = int(status.partition("VmHWM:")[2].split()[0])

    def megabytes(self) -> float:
        """The sum."""
        self._over.set()
        self.join()
        return sum(self._found.values()) / 1000


def live(nats_url: str, dsn: str, events: int) -> Row:
    """A projector from the beginning to the end."""
    begun = time.perf_counter()
    child = process(nats_url, dsn, "abaco_projector")
    peak = Peak(child.pid)
    try:
        uvloop.run(reached(dsn, events))
        return events / (time.perf_counter() - begun), peak.megabytes()
    finally:
        child.terminate()
        child.wait()


def command(name: str) -> Callable[[str, str, int], Row]:
    """A command of ``abaco``."""

    def run(nats_url: str, dsn: str, events: int) -> Row:
        begun = time.perf_counter()
        child = process(nats_url, dsn, "abaco_local", name)
        peak = Peak(child.pid)
        assert child.wait() == 0, name
        return events / (time.perf_counter() - begun), peak.megabytes()

    return run


STEPS = {"live": live, "rebuild": command("rebuild"), "verify": command("verify")}


def measure(events: int, actors: int) -> dict[str, object]:
    """All figures: of a tenth of the history, then of all of it beside the ceiling."""
    few = events // 10
    drafts = history(events, actors)
    with scratch_folder() as one, scratch_folder() as other:
        log, database = Lazy(one), Shipped(other)
        log.start()
        database.start()
        try:
            uvloop.run(fill(log.url, islice(drafts, few)))
            dsn = database.create_database("few")
            before = {name: step(log.url, dsn, few) for name, step in STEPS.items()}
            written = uvloop.run(fill(log.url, drafts))
            dsn = database.create_database("bench")
            raw = uvloop.run(ceiling(log.url, dsn, events))
            rows = {name: step(log.url, dsn, events) for name, step in STEPS.items()}
        finally:
            database.kill()
            log.kill()
    table = {
        name: {
            "of_the_ceiling": round(rate / raw, 2),
            "events_per_second": round(rate),
            "peak_mb": round(memory),
            "peak_mb_of_a_tenth": round(before[name][1]),
        }
        for name, (rate, memory) in rows.items()
    }
    setting = {"events": events, "actors": actors, "sync_interval": "2m", "fsync": "on"}
    return {**setting, "written_per_second": round(written), "ceiling": round(raw), **table}


def main() -> None:
    """Print the table, and keep the figures."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    actors = int(sys.argv[2]) if len(sys.argv) > 2 else ACTORS
    figures = measure(events, actors)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "projection.json").write_text(json.dumps(figures, indent=2) + "\n")
    out = sys.stdout
    out.write(f"{events} events, {actors} actors; raw ceiling {figures['ceiling']} events/s\n")
    out.write(f"{'':10}{'of the ceiling':>16}{'events/s':>12}{'peak MB':>10}{'of a tenth':>12}\n")
    for name, row in figures.items():
        if isinstance(row, dict):
            ratio, rate, peak, before = row.values()
            out.write(f"{name:10}{ratio:>16}{rate:>12}{peak:>10}{before:>12}\n")


if __name__ == "__main__":
    main()
