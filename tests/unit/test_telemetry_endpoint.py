"""The metrics endpoint of a service without an HTTP server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest

import readings
from abaco_proto.errors import Malformed
from abaco_telemetry.metric_registry import MetricRegistry
from abaco_telemetry.metrics_endpoint import MAX_HEAD_BYTES, MetricsEndpoint
from deadlines import LIMIT_SECONDS
from servers import LOOPBACK, free_port


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
async def client(port: int) -> AsyncIterator[httpx.AsyncClient]:
    registry = MetricRegistry()
    asked = registry.gauge("asked", "How often it was refreshed.")

    async def refresh() -> None:
        asked.inc()

    async with (
        MetricsEndpoint(registry, refresh).listening(LOOPBACK, port),
        httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}") as client,
    ):
        yield client


async def test_it_is_refreshed_for_every_scrape(client: httpx.AsyncClient) -> None:
    for expected in (1, 2):
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert readings.value(readings.read(answer.text), "asked") == expected


async def test_there_is_nothing_else(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 404
    assert (await client.post("/metrics")).status_code == 404
    assert (await client.head("/metrics")).text == ""


@pytest.mark.parametrize("sent", [b"\r\n\r\n", b"GET", b"\xff" * (2 * MAX_HEAD_BYTES)])
async def test_a_malformed_request_is_disconnected(
    client: httpx.AsyncClient, port: int, sent: bytes
) -> None:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(sent)
    writer.write_eof()
    with suppress(ConnectionResetError):
        async with asyncio.timeout(LIMIT_SECONDS):
            assert b"200 OK" not in await reader.read()
    writer.close()
    assert (await client.get("/metrics")).status_code == 200


async def test_a_port_in_use_is_named(client: httpx.AsyncClient, port: int) -> None:
    with pytest.raises(Malformed, match=f"^ABACO_METRICS_PORT: cannot listen on {LOOPBACK}:{port}"):
        async with MetricsEndpoint(MetricRegistry()).listening(LOOPBACK, port):
            pass


async def test_no_port_is_none(port: int) -> None:
    async with MetricsEndpoint(MetricRegistry()).listening(LOOPBACK, 0):
        pass
