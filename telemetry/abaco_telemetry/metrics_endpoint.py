"""A small HTTP endpoint for metrics, for services that have no HTTP server.

It runs on the event loop of the service, so metrics need no lock, and values that cost time are
computed only for a scrape.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from abaco_proto.errors import Malformed
from abaco_telemetry.metric_registry import CONTENT_TYPE, MetricRegistry

MAX_HEAD_BYTES = 16 * 1024
REQUEST_SECONDS = 10.0

Refresh = Callable[[], Awaitable[None]]


async def _no_refresh() -> None:
    """Do nothing: the default of ``refresh``."""


class MetricsEndpoint:
    """Answers ``GET /metrics``, one request per connection."""

    def __init__(self, registry: MetricRegistry, refresh: Refresh = _no_refresh) -> None:
        """``refresh`` is awaited before each answer."""
        self._registry = registry
        self._refresh = refresh

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncGenerator[None, None]:
        """Listen inside the block; not at all if the port is 0.

        Raises:
            Malformed: the port is in use, or the address does not belong to this machine.
        """
        if not port:
            yield
            return
        try:
            server = await asyncio.start_server(self._answer, host, port, limit=MAX_HEAD_BYTES)
        except OSError as error:
            address = f"{host}:{port}"
            raise Malformed(
                f"ABACO_METRICS_PORT: cannot listen on {address}: {error.strerror}"
            ) from None
        try:
            yield
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request. A slow or malformed request is disconnected."""
        with suppress(
            OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._response(head.split(b"\r\n")[0]))
                await writer.drain()
        writer.close()

    async def _response(self, line: bytes) -> bytes:
        method, _, rest = line.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD") or path != b"/metrics":
            return _http_response("404 Not Found", "text/plain", b"GET /metrics\n")
        await self._refresh()
        body = self._registry.text()
        return _http_response("200 OK", CONTENT_TYPE, body if method == b"GET" else b"")


def _http_response(status: str, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
