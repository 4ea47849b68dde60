"""Messages accepted a second: over HTTP by one api process, and by JetStream itself.

    python bench/intake.py [--seconds S] [--turns N] [--actors 1,16,64]

Both run against the same server with ``sync_interval: always`` (every message is on disk before
it is acknowledged), 64 requests in flight, in turns, on one machine that also runs the clients.
Raw is what the library itself does, nats-py's own client and its ``request``, with the very same
subjects, bodies and headers; HTTP has 64 keep-alive connections. With keys each request has an
Idempotency-Key of its own. With tokens the requests go to a second process with ``ABACO_AUTH=on``.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import nats
import uvloop
from nats.aio.client import Client

from abaco_api import admin_token
from abaco_api.access.domain.principal import Role
from abaco_api.access.domain.token_requests import TokenRequest
from abaco_api.api_settings import ApiSettings
from abaco_bench.load.wire import connect
from abaco_bench.results import machine, report
from abaco_bench.results.figures import Figure, Ratio, median, spread
from abaco_bench.results.picture import Panel, draw
from abaco_bench.results.progress import say
from abaco_proto import events as ev
from abaco_proto import names
from abaco_proto.envelope import draft, encode, to_headers
from abaco_proto.envelope import parse_time as time_of
from abaco_proto.names import event_subject
from api_stage import Api, running
from servers import NatsServer, scratch_folder

IN_FLIGHT = 64
TIMEOUT_SECONDS = 1.5
NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"
MESSAGE = "execute yourself"
OPEN, GUARDED = "bench", "guarded"
"""Names of the actors of each process: two that append to one inbox would hinder each other."""

Send = Callable[[int], Awaitable[None]]


async def rate(send: Callable[[int], Awaitable[Send]], seconds: float) -> float:
    """Requests a second of ``IN_FLIGHT`` clients; ``send(n)`` makes the n-th client."""
    clients = [await send(n) for n in range(IN_FLIGHT)]
    begun = time.perf_counter()
    deadline = begun + seconds
    counts = await asyncio.gather(*[_busy(client, deadline) for client in clients])
    return sum(counts) / (time.perf_counter() - begun)


async def _busy(client: Send, deadline: float) -> int:
    count = 0
    while time.perf_counter() < deadline:
        await client(count)
        count += 1
    return count


def raw(client: Client, actors: int, run: int) -> Callable[[int], Awaitable[Send]]:
    """Clients that publish the events themselves."""

    async def make(n: int) -> Send:
        actor_id = names.actor_id(f"raw{run}", n % actors)

        async def send(count: int) -> None:
            ordinal = n * 1_000_000 + count
            event = ev.MessageReceived(
                actor_id=actor_id,
                execution_id=names.execution_id(actor_id, ordinal),
                ordinal=ordinal,
                message=MESSAGE,
            )
            drafted = draft(event, tenant="default", time=time_of(""), causation_id=f"req-{n}")
            subject = event_subject("default", event)
            answer = await client.request(
                subject, encode(event), timeout=TIMEOUT_SECONDS, headers=to_headers(drafted)
            )
            assert b'"error"' not in answer.data, answer.data

        return send

    return make


def http(
    port: int, actors: int, *, keys: bool = False, token: str = ""
) -> Callable[[int], Awaitable[Send]]:
    """Clients with one keep-alive connection each; no more of HTTP than is needed."""
    credential = f"Authorization: Bearer {token}\r\n" if token else ""

    async def make(n: int) -> Send:
        wire = await connect(port)
        actor_id = names.actor_id(GUARDED if token else OPEN, n % actors)
        path, form = f"/actors/{actor_id}/messages", f"message={MESSAGE}"

        async def send(_: int) -> None:
            more = f"Idempotency-Key: {uuid4()}\r\n" if keys else ""
            status, body = await wire.ask("POST", path, form, more + credential)
            assert status == 200, body

        return send

    return make


async def register(port: int, actors: int, name: str, more: str = "") -> None:
    """The actors ``<name>_0`` and so on; ``more`` are headers."""
    wire = await connect(port)
    for _ in range(actors):
        form = f"image=a/b&name={name}&min_workers=0"
        status, body = await wire.ask("POST", "/actors", form, more)
        assert status == 201, body
    wire.close()


PUBLISHED = 196.0
"""Messages a second that are quoted for Abaco, on its own machines."""


RAW, HTTP, KEYS = "raw JetStream", "HTTP", "HTTP with keys"
TOKENS = "HTTP with tokens"

GOALS = {HTTP: 0.5, TOKENS: 0.9}
"""Of raw, and of HTTP; not for one actor alone, whose messages each name the sequence of the one
before."""

LIMITS = {
    RAW: "the log's writes to disk, which the server puts together, and nats-py in one process",
    HTTP: "one api process in Python on one core; the log is behind it",
    KEYS: "the same, and the key of each request",
    TOKENS: "the same, and the token of each request",
}


async def measure(
    server: NatsServer, api: Api, guarded: Api, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Messages a second, by what accepted them and for how many actors."""
    client = await nats.connect(server.url)
    await register(api.port, max(options.actors), OPEN)
    request = TokenRequest(name="bench", owner="bench", roles=[Role.ADMIN])
    settings = ApiSettings(nats_url=server.url)
    token = await admin_token.create(settings, request, settings.tenant)
    await asyncio.sleep(1)  # until the process knows the token
    credential = f"Authorization: Bearer {token}\r\n"
    await register(guarded.port, max(options.actors), GUARDED, credential)
    samples: dict[str, list[float]] = defaultdict(list)
    run = 0
    for turn in range(options.turns):
        for actors in options.actors:
            for name, make in (
                (RAW, raw(client, actors, run)),
                (HTTP, http(api.port, actors)),
                (KEYS, http(api.port, actors, keys=True)),
                (TOKENS, http(guarded.port, actors, token=token)),
            ):
                samples[f"{name}, {actors} actors"].append(await rate(make, options.seconds))
            run += 1
        say(f"turn {turn + 1}/{options.turns}")
    await client.close()
    return samples


def made_report(samples: dict[str, list[float]], options: argparse.Namespace) -> report.Report:
    """The report: how much of what the log takes the api passes on, and the rates."""
    return report.Report(
        name="intake",
        machine=options.machine,
        options={"in_flight": IN_FLIGHT, "seconds": options.seconds, "turns": options.turns},
        ratios=[
            Ratio(
                name=f"{one} to {other}, {actors} actors",
                value=_ratio(
                    samples[f"{one}, {actors} actors"], samples[f"{other}, {actors} actors"]
                ),
                unit="x",
                goal=GOALS.get(one) if actors > 1 else None,
            )
            for one, other in ((HTTP, RAW), (KEYS, HTTP), (TOKENS, HTTP))
            for actors in options.actors
        ]
        + [
            Ratio(
                name=f"{HTTP}, {actors} actors, to Abaco's published {PUBLISHED:g} a second",
                value=median(samples[f"{HTTP}, {actors} actors"]) / PUBLISHED,
                unit="x",
            )
            for actors in options.actors
        ],
        figures=[
            Figure(
                name=name,
                unit="per s",
                spread=spread(found),
                limit=LIMITS[name.partition(",")[0]],
            )
            for name, found in samples.items()
        ],
        samples=samples,
    )


def _ratio(ours: list[float], others: list[float]) -> float:
    """The median ratio of two rates of the same turn: what else the machine does slows both."""
    return median([one / other for one, other in zip(ours, others, strict=True)])


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=4, help="of one measurement (4)")
    add("--turns", type=int, default=3, help="measurements of each (3)")
    add("--actors", type=report.numbers, default=[1, 16, 64], help="how many inboxes (1,16,64)")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, keep the JSON and the picture."""
    options = parsed()
    with scratch_folder() as folder, tempfile.TemporaryDirectory() as logs:
        server = NatsServer(folder)
        sync_interval = machine.sync_interval(server.config)
        options.machine = {**machine.description(), "sync_interval": sync_interval}
        server.start()
        api = Api(Path(logs), server.url, NO_DATABASE)
        guarded = Api(Path(logs), server.url, NO_DATABASE, auth="on")
        try:
            with running(api, guarded):
                samples = uvloop.run(measure(server, api, guarded, options))
        finally:
            server.kill()
    found = made_report(samples, options)
    sys.stdout.write(report.table(found))
    ours = frozenset(name for name in samples if name.startswith(HTTP))
    panel = Panel(title="accepted", figures=found.figures, ours=ours, logarithmic=False)
    for path in report.keep(found, draw("Messages accepted a second", [panel])):
        say(f"kept {path}")


if __name__ == "__main__":
    main()
