"""What an actor's former workers cost: the stop of one, the list of them, a worker service's start.

    python bench/worker_history.py [--sizes 10,1000,100000] [--stops N]

A size is how many workers one actor has had that have ended, with the 4 events of each after
them, half of them on the host that is looked at. For each size, over HTTP: the stop of a worker
that lives, and the list of workers. Then Postgres is killed: how long it takes until the first stop
is accepted, which may be refused with 503 while the history is read, and the stops after it. Last,
in this process, how long a worker service takes to find out which of its workers live, without a
checkpoint and with one.

NATS writes the history as ``bench/projection.py`` does, and syncs every write from then on.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvloop

from abaco_bench.stack.run_events import worker_ready
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import Draft, draft
from abaco_worker.app.live_workers import LiveWorkers
from api_stage import Api, running
from histories import T0, TENANT, write
from projection import RESULTS, Lazy, Shipped, process, reached
from servers import NatsServer, scratch_folder

ACTOR = "long_0"
LIVE = 40
RETRY_SECONDS = 0.05
DEADLINE_SECONDS = 300.0

Figures = dict[str, float]


def history(workers: int) -> Iterator[Draft]:
    """The drafts of an actor that has had so many workers, and has some that live."""
    for n, event in enumerate(_events(workers)):
        yield draft(event, tenant=TENANT, time=T0, causation_id=f"req-{n}", position=n)


def _events(workers: int) -> Iterator[ev.Event]:
    definition = ev.Definition(name="long", image="a/b", min_workers=1, max_workers=LIVE)
    yield ev.ActorRegistered(actor_id=ACTOR, definition=definition)
    for number in range(workers + LIVE):
        worker: dict[str, Any] = {
            "actor_id": ACTOR,
            "worker_id": names.worker_id(ACTOR, number),
            "host_id": f"h{number % 2}",
        }
        yield ev.WorkerRequested(**worker, revision=1, actor_sequence=1, reason="below min_workers")
        yield worker_ready(worker)
        if number < workers:
            yield ev.WorkerStopRequested(**worker, reason="idle")
            yield ev.WorkerStopped(**worker, reason="idle")


async def stop(client: httpx.AsyncClient, number: int) -> tuple[float, int]:
    """The seconds until a stop is accepted, and how often it was refused for now."""
    begun = time.perf_counter()
    for refused in range(int(DEADLINE_SECONDS / RETRY_SECONDS)):
        path = f"/actors/{ACTOR}/workers/{names.worker_id(ACTOR, number)}"
        answer = await client.delete(path)
        if answer.status_code == 200:
            return time.perf_counter() - begun, refused
        assert answer.status_code == 503, answer.text
        assert time.perf_counter() - begun < DEADLINE_SECONDS, "503 for good"
        await asyncio.sleep(RETRY_SECONDS)
    raise AssertionError("503 for good")


async def ready(client: httpx.AsyncClient) -> None:
    """Wait until the api knows all actors."""
    while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(RETRY_SECONDS)


async def requests(api: Api, workers: int, stops: int, postgres: Shipped) -> Figures:
    """The figures of the api."""
    figures: Figures = {}
    live = iter(range(workers, workers + LIVE))
    async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:
        await ready(client)
        found = [await stop(client, next(live)) for _ in range(stops)]
        figures["stop p50 ms"] = 1000 * statistics.median(seconds for seconds, _ in found)
        figures["stop max ms"] = 1000 * max(seconds for seconds, _ in found)
        begun = time.perf_counter()
        listed = await client.get(f"/actors/{ACTOR}/workers")
        assert len(listed.json()["result"]) == LIVE
        figures["list ms"] = 1000 * (time.perf_counter() - begun)
        postgres.kill()
        seconds, refused = await stop(client, next(live))
        figures["without Postgres: first stop s"] = seconds
        figures["without Postgres: refused before it"] = refused
        found = [await stop(client, next(live)) for _ in range(stops)]
        figures["without Postgres: later stop p50 ms"] = 1000 * statistics.median(
            seconds for seconds, _ in found
        )
    return figures


async def start(url: str) -> Figures:
    """The figures of a worker service's start."""
    figures: Figures = {}
    connection = Connection(url, name="bench", timeout=30)
    await connection.open()
    with tempfile.TemporaryDirectory() as folder:
        for how in ("without", "with"):
            begun = time.perf_counter()
            live = LiveWorkers(JetStreamEventLog(connection), "h0", Path(folder))
            found = await live.start()
            live.save()
            figures[f"start {how} a checkpoint ms"] = 1000 * (time.perf_counter() - begun)
            assert len(found) == LIVE // 2
    await connection.close()
    return figures


async def _fill(url: str, workers: int) -> int:
    connection = Connection(url, name="bench", timeout=30)
    await connection.open()
    count = await write(connection, history(workers))
    await connection.close()
    return count


def measure(workers: int, stops: int) -> Figures:
    """One size."""
    with scratch_folder() as one, scratch_folder() as other, tempfile.TemporaryDirectory() as logs:
        nats: NatsServer = Lazy(one)
        postgres = Shipped(other)
        try:
            nats.start()
            postgres.start()
            dsn = postgres.create_database("bench")
            events = uvloop.run(_fill(nats.url, workers))
            nats.config.write_text(nats.config.read_text().replace('"2m"', "always"))
            nats.stop()
            nats.start()
            projector = process(nats.url, dsn, "abaco_projector")
            try:
                uvloop.run(reached(dsn, events))
                api = Api(Path(logs), nats.url, dsn)
                with running(api):
                    figures = uvloop.run(requests(api, workers, stops, postgres))
            finally:
                projector.terminate()
                projector.wait()
            return {**figures, **uvloop.run(start(nats.url))}
        finally:
            postgres.kill()
            nats.kill()


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="10,1000,100000", help="workers that have ended, …")
    parser.add_argument("--stops", type=int, default=15, help="stops of each kind (15)")
    return parser.parse_args()


def main() -> None:
    """Print the figures as JSON, and keep them."""
    options = parsed()
    found = {
        f"{int(size):,} workers": measure(int(size), options.stops)
        for size in options.sizes.split(",")
    }
    rounded = {
        size: {name: round(value, 1) for name, value in figures.items()}
        for size, figures in found.items()
    }
    text = json.dumps(rounded, indent=2) + "\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "worker_history.json").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
