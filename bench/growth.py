"""What it costs when there is more of everything: small, middle and large histories side by side.

    python bench/growth.py [--sizes 100:10000,1000:100000] [--starts N] [--requests N] [--keep DIR]

A size is so many actors, with so many events each. For each: how long every service takes
to start, the memory of each and of the NATS server, POST message and GET execution under a small
steady load, and how soon the scheduler asks for the first worker of a new actor. Each service is a
process of its own, on a NATS server with ``sync_interval: always`` and Postgres as shipped; a host
that only pretends answers for the containers. What is to be compared is the same in all sizes:
the rate of requests, and to how many actors they go.

With ``--keep`` the histories are kept in that folder, and used again; it must be one that another
account can look into (Postgres does not run as root).
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, aclosing, suppress
from pathlib import Path
from typing import NamedTuple

import uvloop

from abaco_bench.load.steady import load, messages_and_queries
from abaco_bench.load.wire import connect
from abaco_bench.results import machine, report
from abaco_bench.results.figures import Figure, Ratio, median, spread
from abaco_bench.results.picture import Panel, draw
from abaco_bench.results.progress import say
from abaco_bench.stack.prepared import Servers, opened, prepare
from abaco_bench.stack.pretended_host import PretendedHost
from abaco_bench.stack.services import Services
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto.names import all_events_filter, worker_requests_filter
from servers import scratch_folder

NAMES = ("projector", "api", "scheduler", "worker")
PER_SECOND = 40.0
NEW_ACTORS = 20
EVENTS_PER_RUN = 4.1
CALM_SECONDS = 2.0

Samples = dict[str, list[float]]


class Size(NamedTuple):
    """So many actors, and their events."""

    actors: int
    events: int

    @property
    def runs(self) -> int:
        """Executions that every actor has for sure."""
        return int((self.events / self.actors - 3) / EVENTS_PER_RUN) - 2

    def __str__(self) -> str:
        return f"{self.actors:,} actors"


class Growth:
    """Samples of all sizes, by what was measured and the size."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Nothing is measured yet."""
        self._options = options
        self.samples: Samples = defaultdict(list)
        self.machine = machine.description()

    def measure(self, size: Size, folder: Path) -> None:
        """One size, from its history on."""
        made = prepare(folder, *size)
        with opened(made) as servers, tempfile.TemporaryDirectory() as logs:
            self.machine["sync_interval"] = machine.sync_interval(servers.nats.config)
            uvloop.run(self._measure(size, servers, Path(logs)))

    async def _measure(self, size: Size, servers: Servers, folder: Path) -> None:
        self._note("start of nats-server", size, servers.start_seconds)
        connection = Connection(servers.nats.url, name="bench", timeout=30)
        await connection.open()
        services = Services(servers, folder, connection)
        host = asyncio.create_task(PretendedHost(connection, "h1", 2 * size.actors + 100).run())
        try:
            await self._starts(size, services)
            await asyncio.sleep(CALM_SECONDS)
            self._memory("after the start", size, services)
            await self._worker_requests(size, services, JetStreamEventLog(connection))
            await self._load(size, services)
            self._memory("after the load", size, services)
        finally:
            services.stop()
            host.cancel()
            with suppress(asyncio.CancelledError):
                await host
            await connection.close()

    async def _starts(self, size: Size, services: Services) -> None:
        for name in NAMES:
            if name == "scheduler":
                self._note(
                    "start of a scheduler without a snapshot", size, await services.start(name)
                )
                await services.snapshot()
            for _ in range(self._options.starts):
                self._note(f"start of the {name}", size, await services.start(name))
            say(f"{size}: the {name} has started")

    async def _load(self, size: Size, services: Services) -> None:
        requests = [*messages_and_queries(size.actors, size.runs, self._options.requests)]
        found = await load(services.api.port, requests, PER_SECOND)
        self.samples[_key("POST message", size)] += found["POST"]
        self.samples[_key("GET execution", size)] += found["GET"]

    async def _worker_requests(
        self, size: Size, services: Services, log: JetStreamEventLog
    ) -> None:
        """From the POST of an actor to the request for its worker, in the log."""
        wire = await connect(services.api.port)
        last = await log.last(all_events_filter())
        after = last.sequence if last is not None else 0
        async with aclosing(log.follow([worker_requests_filter()], after=after)) as requests:
            await anext(requests)  # it is there, and nothing is in it
            for _ in range(NEW_ACTORS):
                begun = time.perf_counter()
                await wire.result("POST", "/actors", "image=a/b&name=new&min_workers=1")
                await anext(requests)
                milliseconds = (time.perf_counter() - begun) * 1000
                self._note("POST actor to worker requested", size, milliseconds)
        wire.close()

    def _memory(self, when: str, size: Size, services: Services) -> None:
        for name, megabytes in services.memory().items():
            self._note(f"memory of {name} {when}", size, megabytes)

    def _note(self, what: str, size: Size, value: float) -> None:
        self.samples[_key(what, size)].append(value)


def _key(what: str, size: Size) -> str:
    return f"{what}, {size}"


# -- the report ----------------------------------------------------------------------------------

LIMITS = {
    "POST": "one write to disk before the answer, and what else the machine does",
    "GET": "one query of Postgres by key",
    "start": "what it has to know, read from the log or from a snapshot",
    "memory": "what it keeps of each actor",
}


def made_report(growth: Growth, options: argparse.Namespace) -> report.Report:
    """How each thing grows from the smallest size, then the figures."""
    by_thing: dict[str, list[str]] = defaultdict(list)
    for key in growth.samples:
        by_thing[key.partition(",")[0]].append(key)
    ordered = [key for keys in by_thing.values() for key in keys]
    return report.Report(
        name="growth",
        machine=growth.machine,
        options={
            "sizes": " ".join(f"{s.actors}:{s.events}" for s in options.sizes),
            "requests_per_second": PER_SECOND,
            "starts": options.starts,
        },
        ratios=[
            Ratio(
                name=f"{key} to {keys[0].partition(', ')[2]}",
                value=median(growth.samples[key]) / median(growth.samples[keys[0]]),
                unit="x",
            )
            for keys in by_thing.values()
            for key in keys[1:]
        ],
        figures=[_figure(key, growth.samples[key]) for key in ordered],
        samples=growth.samples,
    )


def _figure(key: str, samples: list[float]) -> Figure:
    kind = key.partition(" ")[0]
    unit = {"start": "s", "memory": "MB"}.get(kind, "ms")
    return Figure(name=key, unit=unit, spread=spread(samples), limit=LIMITS[kind])


def picture(found: report.Report) -> str:
    """A panel for each unit; the largest size has our colour."""
    titles = {"ms": "an answer", "s": "a start", "MB": "memory"}
    largest = found.figures[-1].name.partition(", ")[2]
    return draw(
        "What it costs when there is more of everything",
        [
            Panel(
                title=title,
                figures=[f for f in found.figures if f.unit == unit],
                ours=frozenset(f.name for f in found.figures if f.name.endswith(f", {largest}")),
                logarithmic=True,
            )
            for unit, title in titles.items()
        ],
    )


def _sizes(text: str) -> list[Size]:
    return [Size(*map(int, part.split(":"))) for part in text.split(",")]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--sizes", type=_sizes, default=_sizes("100:10000,1000:100000"), help="actors:events,…")
    add("--starts", type=int, default=3, help="starts of each service (3)")
    add("--requests", type=int, default=300, help="messages, and as many queries (300)")
    add("--keep", type=Path, help="the folder in which histories are kept")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, keep the JSON and the picture."""
    options = parsed()
    growth = Growth(options)
    with ExitStack() as stack:
        folder = options.keep or stack.enter_context(scratch_folder())
        for size in options.sizes:
            growth.measure(size, folder)
    found = made_report(growth, options)
    sys.stdout.write(report.table(found))
    for path in report.keep(found, picture(found)):
        say(f"kept {path}")


if __name__ == "__main__":
    main()
