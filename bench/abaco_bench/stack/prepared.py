"""A log of a given size and the read models of it, made once and then only copied."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from abaco_bench.results.progress import say
from abaco_jetstream import Archive, Connection
from histories import history, write
from projection import Lazy, Shipped, process, reached
from servers import NatsServer, scratch_folder

STREAMS, ROWS = "streams", "rows"


class Servers:
    """A log as shipped, and a database as shipped; both run. ``start_seconds`` is the log's."""

    def __init__(self, nats: NatsServer, dsn: str, start_seconds: float) -> None:
        """Made by :func:`opened`."""
        self.nats = nats
        self.dsn = dsn
        self.start_seconds = start_seconds


def prepare(folder: Path, actors: int, events: int) -> Path:
    """The folder of a history of this size, below ``folder``; made where it is missing."""
    made = folder / f"{actors}-actors-{events}-events"
    if made.exists():
        return made
    say(f"writing {events} events of {actors} actors …")
    with scratch_folder() as one, scratch_folder() as other:
        log, database = Lazy(one), Shipped(other)
        try:
            log.start()
            database.start()
            uvloop.run(_fill(log.url, actors, events))
            _project(log.url, database.create_database("bench"), events)
            log.stop()
            database.stop()
            made.mkdir(parents=True)
            shutil.move(one / STREAMS, made / STREAMS)
            shutil.move(database.data, made / ROWS)
        finally:
            database.kill()
            log.kill()
    return made


async def _fill(url: str, actors: int, events: int) -> None:
    connection = Connection(url, name="bench", timeout=30)
    await connection.open()
    # The ids of the last two minutes are in the server's memory, and a history is older than that.
    await Archive(connection).restoring(begin=True)
    await write(connection, history(events, actors, min_workers=1))
    await connection.close()


async def _as_shipped(url: str) -> None:
    connection = Connection(url, name="bench", timeout=30)
    await connection.open()
    await Archive(connection).restoring(begin=False)
    await connection.close()


def _project(url: str, dsn: str, events: int) -> None:
    projector = process(url, dsn, "abaco_projector")
    try:
        uvloop.run(reached(dsn, events))
    finally:
        projector.terminate()
        projector.wait()


@contextmanager
def opened(made: Path) -> Iterator[Servers]:
    """Servers on a copy of what was prepared: it stays as it is."""
    with scratch_folder() as one, scratch_folder() as other:
        shutil.copytree(made / STREAMS, one / STREAMS)
        nats, postgres = NatsServer(one), Shipped(other, template=made / ROWS)
        try:
            postgres.start()
            begun = time.perf_counter()
            nats.start()
            seconds = time.perf_counter() - begun
            uvloop.run(_as_shipped(nats.url))
            yield Servers(nats, postgres.dsn("bench"), seconds)
        finally:
            postgres.kill()
            nats.kill()
