"""How long an event takes from its append to its answer in GET, at a steady rate.

    python bench/lag.py [messages a second] [seconds]

Messages of 16 actors are appended on a clock, as the api appends them, to a NATS server that syncs
every write; a projector projects; one client asks the api again and again how many messages wait
for one of the actors (``GET /actors/{id}/messages``). A message's lag is from the acknowledgement
of its append to the end of the first answer that counts it: up to two answers' time is part of it.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import uvloop

import abaco_bench  # noqa: F401 - first: it adds tests/support to the path
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import draft
from abaco_proto.envelope import parse_time as time_of
from api_stage import Api, running
from projection import RESULTS, Shipped, process, reached
from servers import LOOPBACK, NatsServer, scratch_folder

ACTORS = 16
WATCHED = names.actor_id("lag", 0)
RATE, SECONDS = 500, 10


class Lags:
    """What was acknowledged when, and what was seen when."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.acknowledged: dict[tuple[str, int], float] = {}
        self.seen: dict[str, int] = {}
        self.lags: list[float] = []
        self.over = False
        self.news = asyncio.Event()

    def see(self, actor_id: str, count: int) -> None:
        """An answer counted this many messages."""
        now = time.perf_counter()
        for ordinal in range(self.seen.get(actor_id, 0), count):
            begun = self.acknowledged.get((actor_id, ordinal), now)
            self.lags.append(max(now - begun, 0.0))
        self.seen[actor_id] = max(count, self.seen.get(actor_id, 0))
        self.news.set()


async def append(log: JetStreamEventLog, lags: Lags, rate: int, seconds: int) -> None:
    """Append on a clock, whatever the answers take."""
    begun, works = time.perf_counter(), []
    for n in range(rate * seconds):
        await asyncio.sleep(begun + n / rate - time.perf_counter())
        works.append(asyncio.ensure_future(_message(log, lags, n)))
    await asyncio.gather(*works)


async def _message(log: JetStreamEventLog, lags: Lags, n: int) -> None:
    actor_id, ordinal = names.actor_id("lag", n % ACTORS), n // ACTORS
    event = ev.MessageReceived(
        actor_id=actor_id,
        execution_id=names.execution_id(actor_id, ordinal),
        ordinal=ordinal,
        message="execute yourself",
    )
    drafted = draft(event, tenant="default", time=time_of(""), causation_id=f"req-{n}")
    await log.append(drafted)
    lags.acknowledged[actor_id, ordinal] = time.perf_counter()


async def ask(url: str, lags: Lags) -> None:
    """Query the actor repeatedly."""
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        while not lags.over:
            answer = (await client.get(f"/actors/{WATCHED}/messages")).json()
            lags.see(WATCHED, int(answer["result"]["messages"]))


async def measure(nats_url: str, dsn: str, url: str, rate: int, seconds: int) -> dict[str, object]:
    """All figures."""
    connection = Connection(nats_url, name="bench")
    await connection.open()
    log, lags = JetStreamEventLog(connection), Lags()
    for n in range(ACTORS):
        definition = ev.Definition(name="lag", image="a/b", min_workers=0)
        event = ev.ActorRegistered(actor_id=names.actor_id("lag", n), definition=definition)
        await log.append(draft(event, tenant="default", time=time_of(""), causation_id="req-0"))
    await reached(dsn, ACTORS)
    asking = asyncio.ensure_future(ask(url, lags))
    await append(log, lags, rate, seconds)
    await reached(dsn, ACTORS + rate * seconds)
    while lags.seen[WATCHED] < -(-rate * seconds // ACTORS):
        lags.news.clear()
        await lags.news.wait()
    lags.over = True
    await asking
    await connection.close()
    cuts = statistics.quantiles(lags.lags, n=100)
    return {
        "messages_per_second": rate,
        "messages_watched": len(lags.lags),
        "p50_ms": round(1000 * cuts[49], 1),
        "p99_ms": round(1000 * cuts[98], 1),
        "max_ms": round(1000 * max(lags.lags), 1),
    }


def main() -> None:
    """Print the figures as JSON, and keep them."""
    rate = int(sys.argv[1]) if len(sys.argv) > 1 else RATE
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else SECONDS
    with scratch_folder() as one, scratch_folder() as other, tempfile.TemporaryDirectory() as logs:
        log, database = NatsServer(one), Shipped(other)
        log.start()
        database.start()
        dsn = database.create_database("bench")
        projector = process(log.url, dsn, "abaco_projector")
        try:
            api = Api(Path(logs), log.url, dsn)
            with running(api):
                url = f"http://{LOOPBACK}:{api.port}"
                figures = uvloop.run(measure(log.url, dsn, url, rate, seconds))
        finally:
            projector.terminate()
            projector.wait()
            database.kill()
            log.kill()
    text = json.dumps(figures, indent=2) + "\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "lag.json").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
