"""What an answer about the past costs, at histories of growing length.

    python bench/as_of.py [--workers 10,1000,100000] [--readers 4] [--fold]

For each size, an actor has had so many workers, each of which ran one message (seven events in
all); the last one stays. The questions are about the end of that history. Measured are one answer,
and as many at once as there are readers, of which a process makes ``ABACO_MAX_REPLAYS`` together.
With ``--fold`` the same questions are answered by a fold of the whole history, too. The servers and
the projector are the bench's own.
"""

import argparse
import asyncio
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvloop

from abaco_api.api_settings import ApiSettings
from abaco_api.as_of.fold_slots import FoldSlots
from abaco_api.as_of.full_fold import FullFold
from abaco_api.as_of.indexed_answers import IndexedAnswers
from abaco_api.as_of.past_read_models import PastReadModels
from abaco_api.queries.past_rows import PastRows
from abaco_api.queries.postgres_pool import PostgresPool
from abaco_bench.results.progress import say as tell
from abaco_bench.stack.run_events import IMAGE, run_finished, run_started, worker_ready
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import Draft, draft
from histories import T0, TENANT, write
from projection import Lazy, Shipped, process, reached
from servers import scratch_folder

HOST = "h1"
SECONDS = 3600.0
MIB = 1024 * 1024

Question = Callable[[PastReadModels], Awaitable[Any]]


def history(sizes: list[int]) -> Iterator[Draft]:
    """The drafts of one actor a size."""
    for number, workers in enumerate(sizes):
        for position, event in enumerate(_events(names.actor_id("bench", number), workers)):
            yield draft(event, tenant=TENANT, time=T0, causation_id="bench", position=position)


def _events(actor_id: str, workers: int) -> Iterator[ev.Event]:
    definition = ev.Definition(name=names.actor_name(actor_id), image=IMAGE)
    yield ev.ActorRegistered(actor_id=actor_id, definition=definition)
    for n in range(workers):
        worker: Any = {
            "actor_id": actor_id,
            "worker_id": names.worker_id(actor_id, n),
            "host_id": HOST,
        }
        yield ev.WorkerRequested(**worker, revision=1, actor_sequence=1, reason="work waits")
        yield worker_ready(worker)
        yield from _run(worker, n)
        if n < workers - 1:
            yield ev.WorkerStopped(**worker, reason="idle")


def _run(worker: dict[str, str], ordinal: int) -> Iterator[ev.Event]:
    actor_id = worker["actor_id"]
    execution_id = names.execution_id(actor_id, ordinal)
    yield ev.MessageReceived(
        actor_id=actor_id, execution_id=execution_id, ordinal=ordinal, message="execute yourself"
    )
    run: Any = {**worker, "execution_id": execution_id, "attempt": 1}
    yield ev.ExecutionAssigned(**run, ordinal=ordinal, message_sequence=1, actor_sequence=1)
    yield run_started(run)
    yield run_finished(run)


def questions(actor_id: str, workers: int) -> dict[str, Question]:
    """What is asked about an actor."""
    middle = workers // 2
    return {
        "actor": lambda past: past.actor(actor_id),
        "worker list": lambda past: past.workers(actor_id),
        "one worker": lambda past: past.worker(actor_id, names.worker_id(actor_id, middle)),
        "one execution": lambda past: past.execution(actor_id, middle),
        "executions": lambda past: past.executions(actor_id, 1000, middle),
        "messages": lambda past: past.waiting(actor_id),
    }


def peak_mib() -> float:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


async def seconds(question: Question, past: PastReadModels, readers: int) -> float:
    """How long so many answers at once take."""
    begun = time.perf_counter()
    await asyncio.gather(*(question(past) for _ in range(readers)))
    return time.perf_counter() - begun


async def measure(nats_url: str, dsn: str, sizes: list[int], readers: int, *, fold: bool) -> None:
    """A line a question and size."""
    connection = Connection(nats_url, name="bench", timeout=30)
    await connection.open()
    pool = PostgresPool(dsn, SECONDS)
    rows = PastRows(pool, TENANT, SECONDS)
    slots = FoldSlots(ApiSettings().max_replays, SECONDS)
    last = sum(7 * workers for workers in sizes)
    folding = FullFold(JetStreamEventLog(connection), TENANT, last)
    ways = {"indexed": PastReadModels(folding, IndexedAnswers(rows, TENANT, last), SECONDS, slots)}
    if fold:
        ways["fold"] = PastReadModels(folding, None, SECONDS, slots)
    print_line = sys.stdout.write
    print_line(
        f"{'workers':>8} {'question':>14} {'way':>8} {'one':>10} {f'{readers} at once':>10}\n"
    )
    try:
        for number, workers in enumerate(sizes):
            for name, question in questions(names.actor_id("bench", number), workers).items():
                for way, past in ways.items():
                    await seconds(question, past, 1)
                    one = await seconds(question, past, 1)
                    many = await seconds(question, past, readers)
                    figures = f"{1000 * one:>7.1f} ms {1000 * many:>7.1f} ms"
                    print_line(f"{workers:>8} {name:>14} {way:>8} {figures}\n")
                    sys.stdout.flush()
        print_line(f"peak memory {peak_mib():.0f} MiB\n")
    finally:
        pool.close()
        await connection.close()


async def fill(url: str, sizes: list[int]) -> int:
    """Write the history; how many events it has."""
    connection = Connection(url, name="bench", timeout=30)
    await connection.open()
    count = await write(connection, history(sizes))
    await connection.close()
    return count


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", default="10,1000,100000")
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--fold", action="store_true", help="measure the whole fold, too")
    options = parser.parse_args()
    sizes = [int(size) for size in options.workers.split(",")]
    with scratch_folder() as one, scratch_folder() as other:
        nats, postgres = Lazy(one), Shipped(other)
        try:
            nats.start()
            postgres.start()
            dsn = postgres.create_database("bench")
            tell(f"writing {sum(7 * size for size in sizes)} events")
            events = uvloop.run(fill(nats.url, sizes))
            projector = process(nats.url, dsn, "abaco_projector")
            try:
                tell("projecting")
                uvloop.run(reached(dsn, events))
                uvloop.run(measure(nats.url, dsn, sizes, options.readers, fold=options.fold))
            finally:
                projector.terminate()
                projector.wait()
        finally:
            postgres.kill()
            nats.kill()


if __name__ == "__main__":
    main()
