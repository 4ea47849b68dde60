"""What the api counts of requests, and what it lets nobody choose."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

import readings
from abaco_api.api_settings import ApiSettings
from abaco_api.dependencies import Tenants, assemble
from abaco_api.http.application import create_app
from fakes import InMemoryEventLog, InMemoryOutputLog
from servers import LOOPBACK, free_port

COUNT = "abaco_http_request_seconds_count"


@pytest.fixture
async def tenants() -> AsyncIterator[Tenants]:
    nobody = f"postgresql://abaco@{LOOPBACK}:{free_port()}/abaco"
    config = ApiSettings(postgres_dsn=nobody, read_wait_seconds=0.05)
    tenants = assemble(config, InMemoryEventLog(), InMemoryOutputLog())
    folding = [asyncio.create_task(loop()) for loop in tenants.loops]
    yield tenants
    for fold in folding:
        fold.cancel()
    tenants.pool.close()


@pytest.fixture
async def client(tenants: Tenants) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(tenants), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client


async def test_requests_are_counted_by_route_and_status(client: httpx.AsyncClient) -> None:
    await client.post("/actors", data={"image": "abaco/x", "name": "foo"})
    for _ in range(2):
        await client.post("/actors//foo_0/messages/", data={"message": "hi"})
    await client.post("/actors/bar_0/messages", data={"message": "hi"})
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found, route = readings.read(answer.text), "/actors/{actor_id}/messages"
    post = {"method": "POST", "route": route}
    assert readings.value(found, COUNT, **post, status="200") == 2
    assert readings.value(found, COUNT, **post, status="404") == 1
    assert readings.value(found, "abaco_http_requests_in_flight") == 1


async def test_what_clients_make_up_has_one_series(client: httpx.AsyncClient) -> None:
    for n in range(3):
        await client.request(f"ODD{n}", f"/nowhere/{n}")
    await client.request("ODD", "/actors")
    found = readings.read((await client.get("/metrics")).text)
    odd = {"method": "other", "status": "404"}
    assert readings.value(found, COUNT, **odd, route="other") == 3
    assert readings.value(found, COUNT, method="other", route="/actors", status="405") == 1
    assert not any("nowhere" in str(labels) for _, labels in found)


async def test_queries_and_those_without_an_answer_are_counted(client: httpx.AsyncClient) -> None:
    assert (await client.get("/actors")).status_code == 503
    found = readings.read((await client.get("/metrics")).text)
    assert readings.value(found, "abaco_query_seconds_count") >= 1
    assert readings.value(found, "abaco_query_failures_total") >= 1


async def test_a_traceparent_goes_into_the_event_even_where_nobody_looks(
    client: httpx.AsyncClient, tenants: Tenants
) -> None:
    came = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"image": "abaco/x", "name": "foo"}
    await client.post("/actors", data=body, headers={"traceparent": came})
    await client.post("/actors", data=body, headers={"traceparent": "nonsense"})
    await client.post("/actors", data=body)
    first, *rest = [await tenants.service("default").log.at(n) for n in (1, 2, 3)]
    assert first is not None
    assert first.traceparent == came
    assert [r.traceparent for r in rest if r is not None] == [None, None]
