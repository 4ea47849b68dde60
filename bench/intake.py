# noqa: INP001 - a script
"""Messages accepted a second: over HTTP by one api process, and by JetStream itself.

    python bench/intake.py [seconds]

Both run against the same server with ``sync_interval: always`` (every message is on disk before
it is acknowledged), 64 requests in flight, in turns, on one machine that also runs the clients.
Raw is what nats-py publishes of the very same events; HTTP has 64 keep-alive connections.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from abaco_proto import events as ev
from abaco_proto import ids
from abaco_proto.codec import encode
from abaco_proto.envelope import draft, to_headers
from abaco_proto.envelope import parse_time as time_of
from abaco_proto.jetstream import Connection
from abaco_proto.subjects import event_subject
from api_stage import Api, running
from servers import LOOPBACK, NatsServer, scratch_folder

IN_FLIGHT = 64
NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"
MESSAGE = "execute yourself"
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


def raw(connection: Connection, actors: int, run: int) -> Callable[[int], Awaitable[Send]]:
    """Clients that publish the events themselves."""

    async def make(n: int) -> Send:
        actor_id = ids.actor_id(f"raw{run}", n % actors)

        async def send(count: int) -> None:
            ordinal = n * 1_000_000 + count
            event = ev.MessageReceived(
                actor_id=actor_id,
                execution_id=ids.execution_id(actor_id, ordinal),
                ordinal=ordinal,
                message=MESSAGE,
            )
            wish = draft(event, tenant="default", time=time_of(""), causation_id=f"req-{n}")
            subject = event_subject("default", event)
            await connection.request(subject, encode(event), to_headers(wish))

        return send

    return make


def http(port: int, actors: int) -> Callable[[int], Awaitable[Send]]:
    """Clients with one keep-alive connection each; no more of HTTP than is needed."""

    async def make(n: int) -> Send:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        request = _post(f"/actors/bench_{n % actors}/messages", f"message={MESSAGE}")

        async def send(_: int) -> None:
            writer.write(request)
            status, body = await _answer(reader)
            assert status == 200, body

        return send

    return make


def _post(path: str, form: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Length: {len(form)}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    return (head + form).encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


async def register(port: int, actors: int) -> None:
    """The actors ``bench_0`` and so on."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    for _ in range(actors):
        writer.write(_post("/actors", "image=a/b&name=bench&min_workers=0"))
        status, body = await _answer(reader)
        assert status == 201, body
    writer.close()


async def measure(nats: NatsServer, api: Api, seconds: float) -> dict[str, object]:
    """All figures."""
    connection = Connection(nats.url, name="bench")
    await connection.open()
    await register(api.port, 64)
    figures: dict[str, object] = {"sync_interval": "always", "in_flight": IN_FLIGHT}
    for run, actors in enumerate((1, 16, 64)):
        published = await rate(raw(connection, actors, run), seconds)
        accepted = await rate(http(api.port, actors), seconds)
        figures[f"{actors} actors"] = {
            "raw_per_second": round(published),
            "http_per_second": round(accepted),
            "ratio": round(accepted / published, 2),
        }
    await connection.close()
    return figures


def main() -> None:
    """Print the figures as JSON."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    with scratch_folder() as folder, tempfile.TemporaryDirectory() as logs:
        nats = NatsServer(folder)
        nats.start()
        api = Api(Path(logs), nats.url, NO_DATABASE)
        try:
            with running(api):
                figures = uvloop.run(measure(nats, api, seconds))
        finally:
            nats.kill()
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
