"""A small HTTP endpoint for who reads the metrics of a service that has no other.

It runs on the service's own loop: what is read belongs to that loop, so nothing needs a lock, and
what is only worth knowing when somebody asks is worked out then.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from abaco_proto.errors import Malformed
from abaco_telemetry.catalogue import CONTENT_TYPE, Catalogue

HEAD_BYTES = 16 * 1024
PATIENCE_SECONDS = 10.0

Refresh = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    """For who keeps no metric that must be refreshed."""


class Endpoint:
    """``GET /metrics``, one request a connection."""

    def __init__(self, catalogue: Catalogue, refresh: Refresh = _nothing) -> None:
        """``refresh`` brings up to date what is worked out only when it is asked for."""
        self._catalogue = catalogue
        self._refresh = refresh

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncGenerator[None, None]:
        """Answer while inside; port 0 is: not at all.

        Raises:
            Malformed: the port is in use, or the address is none of this machine's.
        """
        if not port:
            yield
            return
        try:
            server = await asyncio.start_server(self._answer, host, port, limit=HEAD_BYTES)
        except OSError as error:
            where = f"{host}:{port}"
            raise Malformed(
                f"ABACO_METRICS_PORT: cannot listen on {where}: {error.strerror}"
            ) from None
        try:
            yield
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer; who is slow or strange is let go."""
        with suppress(
            OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(PATIENCE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._response(head.split(b"\r\n")[0]))
                await writer.drain()
        writer.close()

    async def _response(self, line: bytes) -> bytes:
        method, _, rest = line.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD") or path != b"/metrics":
            return _message("404 Not Found", "text/plain", b"GET /metrics\n")
        await self._refresh()
        body = self._catalogue.text()
        return _message("200 OK", CONTENT_TYPE, body if method == b"GET" else b"")


def _message(status: str, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
