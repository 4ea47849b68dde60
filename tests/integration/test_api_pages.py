"""Long answers: bounded by bytes as well as by count, with a way on, and memory that is bounded."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

import builders as b
from abaco_api.http.paged_response import PAGE_BYTES
from abaco_jetstream import Connection, JetStreamEventLog
from api_stage import Api, becomes_ready, result_of, whole_stage
from servers import PostgresServer

LONG = "x" * 120_000
EVENTS = 160
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    slow = {"query_timeout_seconds": 30, "append_timeout_seconds": 30, "read_wait_seconds": 60}
    with whole_stage(shared_postgres, "api_pages", **slow) as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
async def client(api: Api) -> AsyncGenerator[httpx.AsyncClient, None]:
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=api.url, timeout=60, limits=limits) as client:
        await becomes_ready(client)
        yield client


@pytest.fixture(scope="module")
def last(api: Api) -> int:
    """A history of long messages; the sequence of its last event."""
    return asyncio.run(append(api))


async def append(api: Api) -> int:
    connection = Connection(api.nats_url, name="test", timeout=30)
    await connection.open()
    log = JetStreamEventLog(connection)
    try:
        sequence = await log.append(b.envelope_of(b.registered("foo_0")))
        for n in range(EVENTS):
            sequence = await log.append(b.envelope_of(b.received(n, message=LONG)))
    finally:
        await connection.close()
    return sequence


async def pages(client: httpx.AsyncClient, path: str, after: int) -> list[httpx.Response]:
    found = []
    while path:
        answer = await client.get(path, headers={"Abaco-After": str(after)})
        result_of(answer)
        found.append(answer)
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    return found


@pytest.mark.parametrize(
    "query", ["?limit=10000", "?limit=10000&type=message.*", "?type=message.received&limit=100"]
)
@pytest.mark.parametrize("base", ["/events", "/actors/foo_0/events"])
async def test_a_page_of_events_is_bounded_by_bytes(
    client: httpx.AsyncClient, last: int, base: str, query: str
) -> None:
    found = await pages(client, base + query, last)
    assert all(len(page.content) < PAGE_BYTES + 2 * len(LONG) for page in found)
    assert all(len(page.content) > PAGE_BYTES for page in found[:-1])
    assert len(found) == 3
    sequences = [event["seq"] for page in found for event in result_of(page)]
    begin = 1 if "type" not in query else 2
    assert sequences == list(range(begin, last + 1))
    assert "Abaco-Next" not in found[-1].headers


async def test_an_exact_page_has_no_next(client: httpx.AsyncClient, last: int) -> None:
    for after, more in ((last - 20, False), (last - 21, True)):
        path = f"/events?limit=20&after={after}"
        answer = await client.get(path, headers={"Abaco-After": str(last)})
        assert len(result_of(answer)) == 20
        assert ("Link" in answer.headers) == more


async def test_a_huge_event_passes_alone(client: httpx.AsyncClient, last: int) -> None:
    answer = await client.get(f"/events?limit=1&after={last - 1}")
    assert len(answer.content) > len(LONG)
    head = await client.head(f"/events?limit=10000&after={last - 20}")
    assert head.content == b""
    assert int(head.headers["Content-Length"]) > 20 * len(LONG)


async def test_a_page_of_actors_is_bounded_by_bytes(client: httpx.AsyncClient) -> None:
    sequence = ""
    for n in range(90):
        named = {"image": "a/b", "name": f"big{n}", "min_workers": "0"}
        actor_id = result_of(await client.post("/actors", data=named), 201)["id"]
        sent = await client.post(f"/actors/{actor_id}/state", json={"state": LONG})
        sequence = sent.headers["Abaco-Sequence"]
    for past in ("", f"?as_of={sequence}"):
        found = await pages(client, f"/actors{past}", int(sequence))
        assert len(found) == 2
        assert all(len(page.content) < PAGE_BYTES + 2 * len(LONG) for page in found)
        ids = [actor["id"] for page in found for actor in result_of(page)]
        assert [i for i in ids if i.startswith("big")] == [f"big{n}_0" for n in range(90)]


async def test_long_output_is_whole(client: httpx.AsyncClient, api: Api, last: int) -> None:
    """It is sent as it is read; its text is what was written, however it is cut."""
    ends = [("foo_0_exc_3", 1), ("foo_0_exc_4", 16), ("foo_0_exc_5", 17), ("foo_0_exc_6", 200)]
    connection = Connection(api.nats_url, name="test", timeout=30)
    await connection.open()
    database = await asyncpg.connect(api.dsn)
    written: dict[str, bytes] = {}
    try:
        log = JetStreamEventLog(connection)
        for execution_id, chunks in ends:
            data = ("é😀\0\r\n\u2028" * 100_000).encode()[: 16_001 * chunks - 1] + b"\xff"
            written[execution_id] = data
            n = int(execution_id[-1])
            run = (b.assigned(n), b.started(n), b.finished(n, log_bytes=len(data)))
            sequence = [await log.append(b.envelope_of(event)) for event in run][-1]
            rows = [
                ("default", execution_id, 1, at, data[at : at + 16_001])
                for at in range(0, len(data), 16_001)
            ]
            await database.copy_records_to_table("logs", records=rows)
    finally:
        await database.close()
        await connection.close()
    for execution_id, data in written.items():
        path = f"/actors/foo_0/executions/{execution_id}/logs"
        answer = await client.get(path, headers={"Abaco-After": str(sequence)})
        assert result_of(answer) == data.decode(errors="replace")
        assert answer.json()["msg"] == "Logs retrieved successfully."
        followed = await client.get(f"{path}?follow=true")
        assert followed.text == data.decode(errors="replace")
    path = "/actors/foo_0/executions/foo_0_exc_5/diff?with=foo_0_exc_6"
    assert result_of(await client.get(path))["same_output"] is False


def resident(pid: int) -> int:
    """The memory of a process that is in use now, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


async def test_parallel_pages_take_bounded_memory(
    client: httpx.AsyncClient, api: Api, last: int
) -> None:
    """Eight pages at once, again and again; each is answered, whatever its turn."""
    digests: set[str] = set()
    before = resident(api.pid)
    most, done = before, asyncio.Event()

    async def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, resident(api.pid))
            await asyncio.sleep(0.005)

    async def read() -> None:
        answer = await client.get("/events?limit=10000", headers={"Abaco-After": str(last)})
        assert answer.status_code == 200, answer.text[:300]
        digests.add(hashlib.sha256(answer.content).hexdigest())

    watching = asyncio.create_task(watch())
    for _ in range(3):
        await asyncio.gather(*(read() for _ in range(8)))
    done.set()
    await watching
    assert len(digests) == 1
    print(f"resident: {before / MIB:.0f} MiB before, {most / MIB:.0f} MiB at most")  # noqa: T201
    assert most - before < 100 * MIB
