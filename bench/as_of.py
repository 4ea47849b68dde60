"""What an answer about the past costs: an actor's workers at histories of growing length.

    python bench/as_of.py [--workers 10,1000,100000] [--readers 8]

For each length, an actor has had so many workers (three events each). Measured are the answer to
one question about the last moment, and to many at once, of which an api process serves
``ABACO_MAX_REPLAYS`` together, with the memory that they take. The NATS server is one of the
bench's own.
"""

import argparse
import asyncio
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvloop

from abaco_api.api_settings import ApiSettings
from abaco_api.as_of.fold_slots import FoldSlots
from abaco_api.as_of.moment import Past
from abaco_bench.progress import say as tell
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.codec import encode
from abaco_proto.envelope import draft, to_headers
from abaco_proto.subjects import event_subject
from histories import IMAGE, T0
from servers import NatsServer, scratch_folder

TENANT, HOST = "default", "h1"
IN_FLIGHT = 512
MIB = 1024 * 1024


def history(actor_id: str, workers: int) -> Iterator[ev.Event]:
    """An actor, and workers that came and went; the last one stays."""
    definition = ev.Definition(name=ids.actor_name(actor_id), image="jstubbs/abaco_test")
    yield ev.ActorRegistered(actor_id=actor_id, definition=definition)
    for n in range(workers):
        worker: Any = {
            "actor_id": actor_id,
            "worker_id": ids.worker_id(actor_id, n),
            "host_id": HOST,
        }
        yield ev.WorkerRequested(**worker, revision=1, actor_sequence=1, reason="work waits")
        ready: Any = {"image": "jstubbs/abaco_test", "image_digest": IMAGE, "location": HOST}
        yield ev.WorkerReady(**worker, revision=1, **ready)
        if n < workers - 1:
            yield ev.WorkerStopped(**worker, reason="idle")


async def append(connection: Connection, actor_id: str, workers: int) -> int:
    """Put the history into the log; the sequence of its last event."""
    slots, last = asyncio.Semaphore(IN_FLIGHT), 0

    async def publish(event: ev.Event, position: int) -> None:
        nonlocal last
        drafted = draft(event, tenant=TENANT, time=T0, causation_id="bench", position=position)
        subject = event_subject(TENANT, event)
        try:
            done = await connection.jetstream.publish(
                subject, encode(event), headers=to_headers(drafted)
            )
            last = max(last, done.seq)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for position, event in enumerate(history(actor_id, workers)):
            await slots.acquire()
            group.create_task(publish(event, position))
    return last


def resident() -> float:
    """The most memory that this process had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


async def measure(nats_url: str, sizes: list[int], readers: int) -> None:
    """One line a size."""
    connection = Connection(nats_url, name="bench", timeout=30)
    await connection.open()
    config = ApiSettings()
    say = sys.stdout.write
    say(f"{'workers':>8} {'one answer':>11} {f'{readers} at once':>11} {'peak memory':>12}\n")
    try:
        for n, workers in enumerate(sizes):
            actor_id = ids.actor_id("bench", n)
            tell(f"{workers} workers")
            last = await append(connection, actor_id, workers)
            slots = FoldSlots(config.max_replays, 3600)
            past = Past(JetStreamEventLog(connection), TENANT, last, 3600, slots)
            begun = time.perf_counter()
            found = await past.workers(actor_id)
            one = time.perf_counter() - begun
            assert len(found) == 1, len(found)
            begun = time.perf_counter()
            await asyncio.gather(*(past.workers(actor_id) for _ in range(readers)))
            many = time.perf_counter() - begun
            say(f"{workers:>8} {one:>9.3f} s {many:>9.3f} s {resident():>8.0f} MiB\n")
            sys.stdout.flush()
    finally:
        await connection.close()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", default="10,1000,100000")
    parser.add_argument("--readers", type=int, default=8)
    options = parser.parse_args()
    sizes = [int(size) for size in options.workers.split(",")]
    with scratch_folder() as folder:
        server = NatsServer(folder)
        server.start()
        try:
            uvloop.run(measure(server.url, sizes, options.readers))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
