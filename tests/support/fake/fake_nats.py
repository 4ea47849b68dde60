"""Fake NATS servers with faults, which know enough of the protocol to connect and to append.

Each listens on its own port. ``way`` may be changed at any time:

============  ==================================================================================
way           is a server that
============  ==================================================================================
``works``     answers every request
``silent``    accepts connections and sends nothing, as one that is stopped or cut off
``lonely``    answers pings only: it has no leader, so that appends have no answer
``deaf``      reads nothing more from its connections
``refused``   does not run
============  ==================================================================================
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from servers import LOOPBACK, free_port

STATE = {"messages": 0, "bytes": 0, "first_seq": 1, "last_seq": 0, "consumer_count": 0}


class FakeNats:
    """One fake server."""

    def __init__(self, name: str, way: str = "works") -> None:
        """Listen with :func:`serving`."""
        self.name = name
        self.way = way
        self.port = free_port()
        self.connections = 0
        self.creations = 0
        self.written: list[str] = []
        self.no_room: tuple[int, str] | None = None
        self._over = asyncio.Event()
        self._made: set[str] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._talks: set[asyncio.Task[None] | None] = set()

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"nats://{LOOPBACK}:{self.port}"

    def drop(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def end(self) -> None:
        """Close all connections, and wait until they are closed."""
        self._over.set()
        self.drop()
        await asyncio.gather(*filter(None, self._talks), return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the next iteration

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        self.connections += 1
        self._writers.add(writer)
        self._talks.add(asyncio.current_task())
        try:
            if self.way != "silent":
                writer.write(b"INFO " + json.dumps(self._info()).encode() + b"\r\n")
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    def _info(self) -> dict[str, object]:
        return {"server_id": self.name, "max_payload": 8_000_000, "headers": True, "proto": 1}

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sids: dict[str, str] = {}
        while line := await reader.readline():
            verb, *words = line.decode().split()
            if self.way == "deaf":
                await self._over.wait()
                return
            if verb in ("PUB", "HPUB"):
                await reader.readexactly(int(words[-1]))
                await reader.readexactly(2)
            if self.way == "silent":
                continue
            if verb == "PING":
                writer.write(b"PONG\r\n")
            elif verb == "SUB":
                sids[words[0].removesuffix("*")] = words[-1]
            elif verb in ("PUB", "HPUB") and self.way == "works":
                reply = words[1] if len(words) > (2 if verb == "PUB" else 3) else ""
                answer = json.dumps(self._answer(words[0])).encode()
                for prefix, sid in sids.items():
                    if reply and reply.startswith(prefix):
                        head = f"MSG {reply} {sid} {len(answer)}\r\n"
                        writer.write(head.encode() + answer + b"\r\n")

    def _answer(self, subject: str) -> dict[str, object]:
        verb, _, name = subject.removeprefix("$JS.API.STREAM.").partition(".")
        stream: dict[str, object] = {
            "config": {"name": name, "num_replicas": 1},
            "state": STATE,
            "created": "2026-11-28T00:00:00Z",
        }
        if not subject.startswith("$JS.API."):
            self.written.append(subject)
            return {"stream": "ABACO_EVENTS", "seq": len(self.written)}
        if verb == "CREATE":
            self.creations += 1
            if self.no_room is not None:
                code, description = self.no_room
                return {"error": {"code": 500, "err_code": code, "description": description}}
            self._made.add(name)
        elif self.no_room is not None and name not in self._made:
            return {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
        return stream


@asynccontextmanager
async def serving(*fakes: FakeNats) -> AsyncGenerator[None, None]:
    """Run all servers but the refused ones."""
    servers = [
        await asyncio.start_server(fake.serve, LOOPBACK, fake.port)
        for fake in fakes
        if fake.way != "refused"
    ]
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for fake in fakes:
            await fake.end()
