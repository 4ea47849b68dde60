"""Events over HTTP, with real servers: pages, streams, and the seam between history and life."""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from msgspec.structs import replace

import builders as b
import sse
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from api_stage import (
    Api,
    becomes_ready,
    error_of,
    eventually,
    result_of,
    running,
    whole_stage,
)
from deadlines import LIMIT_SECONDS
from servers import NatsServer, PostgresServer

STREAM = {"Accept": "text/event-stream"}
NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    with whole_stage(shared_postgres, "api_events", stream_heartbeat_seconds=0.2) as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
async def client(api: Api) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
        await becomes_ready(client)
        yield client


@pytest.fixture
async def log(api: Api) -> AsyncGenerator[EventLog, None]:
    async for log in opened(api.nats_url):
        yield log


async def opened(url: str) -> AsyncGenerator[EventLog, None]:
    connection = Connection(url, name="test", timeout=10)
    await connection.open()
    yield JetStreamEventLog(connection)
    await connection.close()


async def register(client: httpx.AsyncClient, name: str) -> str:
    answer = await client.post("/actors", data={"image": "a/b", "name": name})
    actor_id: str = result_of(answer, 201)["id"]
    return actor_id


# -- pages ---------------------------------------------------------------------------------------


async def test_a_page_shows_what_was_just_written(client: httpx.AsyncClient) -> None:
    actor_id = await register(client, "page")
    sent = await client.post(f"/actors/{actor_id}/messages", data={"message": "é\n\"'"})
    sequence = int(sent.headers["Abaco-Sequence"])
    first, second = result_of(await client.get(f"/actors/{actor_id}/events"))
    assert first["type"] == "actor.registered"
    assert second == {
        "seq": sequence,
        "time": second["time"],
        "type": "message.received",
        "tenant": "default",
        "actor_id": actor_id,
        "id": f"{actor_id}_exc_0.received",
        "causation_id": second["causation_id"],
        "correlation_id": f"{actor_id}_exc_0.received",
        "hops": 0,
        "principal": None,
        "data": second["data"],
    }
    assert second["causation_id"].startswith("req-")
    assert second["data"]["message"] == "é\n\"'"
    [one] = result_of(await client.get(f"/events?after={sequence - 1}&limit=1"))
    assert one == second


async def test_a_cursor_leads_through_all_pages(client: httpx.AsyncClient) -> None:
    actor_id = await register(client, "cursor")
    for n in range(7):
        await client.post(f"/actors/{actor_id}/messages", data={"message": str(n)})
    seen: list[str] = []
    address: str | None = f"/actors/{actor_id}/events?type=message.*&limit=3"
    while address is not None:
        page = await client.get(address)
        assert ("Abaco-Next" in page.headers) == ("next" in page.links)
        seen += [e["data"]["message"] for e in result_of(page)]
        address = page.links.get("next", {}).get("url")
    assert seen == [str(n) for n in range(7)]


async def test_events_of_a_principal(api: Api, client: httpx.AsyncClient, log: EventLog) -> None:
    actor_id = await register(client, "whose")
    long = f"user:{'%F0%9F%98%80' * 255}"
    names = [
        "user:anna",
        "token:AbCd1234:anna",
        "user:J%C3%BCrgen",
        "user:a%25_b",
        "user:axb",
        long,
    ]
    appended = [
        await log.append(replace(b.envelope_of(event), principal=principal))
        for principal, event in zip(
            [*names, "service:worker", "user:anna"],
            [*(b.received(n, actor_id) for n in range(6)), b.ready(0, actor_id), b.joined("h-who")],
            strict=True,
        )
    ]

    fresh = {"Abaco-After": str(appended[-1])}

    async def found(**query: Any) -> list[str | None]:
        query |= {"after": appended[0] - 1, "before": appended[-1] + 1}
        page = await client.get("/events", params=query, headers=fresh)
        shown = [e["principal"] for e in result_of(page)]
        async with sse.stream(api.port, f"/events?{urlencode(query)}") as reader:
            assert [e.data["principal"] async for e in reader.all()] == shown
        return shown

    assert await found() == [*names, "service:worker", "user:anna"]
    assert await found(principal="user:anna") == ["user:anna"] * 2
    assert await found(principal="user:anna", actor=actor_id) == ["user:anna"]
    assert await found(principal="user:anna", type="host.joined") == ["user:anna"]
    assert await found(principal="user:anna", type="host.*") == ["user:anna"]
    assert await found(principal="*:anna") == ["user:anna", "token:AbCd1234:anna", "user:anna"]
    assert await found(principal="token:*", type="message.received") == ["token:AbCd1234:anna"]
    assert await found(principal="token:*:anna", actor=actor_id) == ["token:AbCd1234:anna"]
    assert await found(principal="user:Jürgen") == ["user:J%C3%BCrgen"]
    assert await found(principal="user:a%25_b") == ["user:a%25_b"]
    assert await found(principal="user:a%25_*") == ["user:a%25_b"]
    assert await found(principal=long) == [long]
    assert await found(principal="service:worker") == ["service:worker"]
    assert await found(principal="user:bob") == []
    page = await client.get("/events?principal=user:anna&limit=1")
    following = await client.get(page.links["next"]["url"])
    assert [e["seq"] for e in result_of(following)] == [appended[-1]]


async def test_filters(client: httpx.AsyncClient, log: EventLog) -> None:
    actor_id = await register(client, "filters")
    first = int((await client.get("/events?type=actor.*")).json()["result"][-1]["seq"])
    await log.append(b.envelope_of(b.joined(f"h-{actor_id.partition('_')[0]}")))
    for n in range(3):
        await client.post(f"/actors/{actor_id}/state", json={"state": n})
        await client.post(f"/actors/{actor_id}/messages", data={"message": str(n)})

    async def found(**query: Any) -> list[str]:
        events = result_of(await client.get("/events", params={"after": first - 1, **query}))
        return [e["type"] for e in events]

    assert await found(actor="_host-h-filters") == ["host.joined"]
    assert await found(actor=actor_id, type="*_set") == ["actor.state_set"] * 3
    assert await found(type="message.received", actor=actor_id) == ["message.received"] * 3
    assert await found(before=first + 1) == ["actor.registered"]
    everything = result_of(await client.get(f"/actors/{actor_id}/events"))
    middle = everything[3]["time"]
    assert await found(actor=actor_id, until=middle) == [e["type"] for e in everything[:3]]
    assert await found(actor=actor_id, since=middle) == [e["type"] for e in everything[3:]]
    assert await found(since="2999-01-01T00:00:00+01:00") == []


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("after", "after=x"),
        ("after", "after=-1"),
        ("before", "before=1.5"),
        ("limit", "limit=0"),
        ("limit", "limit=10001"),
        ("type", "type=moon.landed"),
        ("type", "type="),
        ("principal", "principal=anna"),
        ("principal", "principal="),
        ("principal", "principal=user:" + "a" * 4000),
        ("actor", "actor=a.b"),
        ("actor", "actor=foo"),
        ("since", "since=yesterday"),
        ("since", "since=2026-01-02T03:04:05"),
        ("until", "until=2026-13-02T03:04:05Z"),
        ("colour", "colour=blue"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_bad_parameter_is_named(
    client: httpx.AsyncClient, name: str, query: str, accept: str
) -> None:
    answer = await client.get(f"/events?{query}", headers={"Accept": accept})
    assert error_of(answer, 400)["msg"].startswith(name)


async def test_what_is_not_there(client: httpx.AsyncClient) -> None:
    for path in ("/actors/nobody_0/events", "/events/0", "/events/123456789", "/events/x"):
        error_of(await client.get(path), 404)
    error_of(await client.get("/actors/nobody_0/events", headers=STREAM), 404)
    answer = await client.get("/events?limit=5", headers=STREAM)
    assert error_of(answer, 400)["msg"].startswith("limit")
    answer = await client.get("/events", headers={**STREAM, "Last-Event-ID": "x"})
    assert error_of(answer, 400)["msg"].startswith("Last-Event-ID")


async def test_an_event_has_its_hash_and_the_head_is_that_of_the_last(
    client: httpx.AsyncClient,
) -> None:
    await register(client, "sealed")
    head = result_of(await client.get("/audit/head"))
    event = result_of(await client.get(f"/events/{head['sequence']}"))
    assert (event["hash"], event["time"]) == (head["hash"], head["time"])
    assert len(bytes.fromhex(event["hash"])) == 32
    assert event["data"]["type"] == event["type"] == "actor.registered"


# -- streams -------------------------------------------------------------------------------------


async def test_history_then_life(api: Api, client: httpx.AsyncClient) -> None:
    actor_id = await register(client, "life")
    async with sse.stream(api.port, f"/actors/{actor_id}/events?after=0") as reader:
        [first] = await reader.take(1)
        await client.post(f"/actors/{actor_id}/messages", data={"message": "hi"})
        [second] = await reader.take(1)
    page = result_of(await client.get(f"/actors/{actor_id}/events"))
    assert [first.data, second.data] == page
    assert [first.id, second.id] == [e["seq"] for e in page]
    assert [first.type, second.type] == ["actor.registered", "message.received"]


async def test_without_a_place_it_begins_now_and_ends_where_it_is_asked_to(
    api: Api, client: httpx.AsyncClient
) -> None:
    actor_id = await register(client, "now")
    async with sse.stream(api.port, "/events") as reader:
        await reader.events()
        while not reader.heartbeats:
            await reader.events()
        sent = await client.post(f"/actors/{actor_id}/messages", data={"message": "hi"})
        [event] = await reader.take(1)
        sequence = int(sent.headers["Abaco-Sequence"])
        assert event.id == sequence
    async with sse.stream(api.port, f"/events?after=0&before={sequence}") as reader:
        ids = [event.id async for event in reader.all()]
        assert ids == list(range(1, sequence))


async def test_a_heartbeat_moves_the_place_past_what_is_not_wanted(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with sse.stream(api.port, "/events?type=inbox.purged&after=0") as reader:
        sent = await client.post("/actors", data={"image": "a/b", "name": "beat"})
        sequence = int(sent.headers["Abaco-Sequence"])
        async with asyncio.timeout(LIMIT_SECONDS):
            while (reader.last_id or 0) < sequence:
                await reader.events()


async def test_head_does_not_stream(client: httpx.AsyncClient) -> None:
    answer = await client.head("/events", headers=STREAM)
    assert answer.status_code == 200


async def test_cut_off_a_hundred_times_each_event_comes_once_and_in_order(
    api: Api, log: EventLog
) -> None:
    count, cuts = 5000, 100
    chance = random.Random(4)
    first = await log.append(b.envelope_of(b.joined("h-cut")))
    was_cut = asyncio.Semaphore(0)
    writing = asyncio.create_task(write(log, count, was_cut, cuts))
    wanted = count // 2
    got: list[sse.Sent] = []
    place, cut = first, 0
    while len(got) < wanted:
        async with sse.stream(api.port, "/events?type=message.received", last_id=place) as reader:
            try:
                async with asyncio.timeout(chance.random() * 0.05):
                    while len(got) < wanted:
                        got += await reader.events()
            except TimeoutError:
                cut += 1
                was_cut.release()
            place = reader.last_id or place
    await writing
    assert cut >= cuts
    messages = [event.data["data"]["ordinal"] for event in got]
    assert sorted(messages) == list(range(wanted))
    ids = [event.id for event in got]
    assert ids == sorted(set(ids))


async def write(log: EventLog, count: int, was_cut: asyncio.Semaphore, cuts: int) -> None:
    """Half of them messages; between two cuts no more than their share, so that all cuts count."""

    async def one(n: int) -> None:
        event: ev.Event = b.received(n // 2, "cut_0") if n % 2 else b.requested(n, "cut_0")
        await log.append(b.envelope_of(event))

    shares = cuts + 1
    for share in range(shares):
        if share:
            await was_cut.acquire()
        await asyncio.gather(*map(one, range(share, count, shares)))


async def test_who_goes_away_leaves_nothing_behind(tmp_path: Path, nats_server: NatsServer) -> None:
    api = Api(tmp_path, nats_server.url, NO_DATABASE, max_subscribers=3)
    with running(api):
        async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:

            async def three_and_no_more() -> bool:
                """Whether there was room again for just as many."""
                try:
                    async with sse.stream(api.port), sse.stream(api.port), sse.stream(api.port):
                        answer = await client.get("/events", headers=STREAM)
                        assert "3 subscribers" in error_of(answer, 429)["msg"]
                        return int(answer.headers["Retry-After"]) > 0
                except sse.Refused:
                    return False

            for _ in range(4):
                await eventually(three_and_no_more)
        assert api.stop() == 0
        assert "Traceback" not in api.log, api.log


async def test_a_stream_outlives_an_outage_of_the_log_and_ends_with_the_process(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    api = Api(tmp_path, nats_server.url, NO_DATABASE, stream_heartbeat_seconds=0.1)
    with running(api):
        async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
            await eventually(lambda: registered(client, "outage"))
            async with (
                sse.stream(api.port, "/events?after=0") as live,
                asyncio.timeout(LIMIT_SECONDS),
            ):
                await live.take(1)
                nats_server.kill()
                async with sse.stream(api.port, "/events?after=0") as late:
                    before = live.heartbeats
                    while live.heartbeats < before + 3 or late.heartbeats < 3:
                        assert not await live.events()
                        assert not await late.events()
                    nats_server.start()
                    await eventually(lambda: registered(client, "outage"))
                    [event] = await live.take(1)
                    assert event.data["actor_id"] == "outage_1"
                    assert [e.data["actor_id"] for e in await late.take(2)] == [
                        "outage_0",
                        "outage_1",
                    ]
                    assert api.stop() == 0
                    while not live.ended:
                        await live.events()
    assert "Traceback" not in api.log, api.log
    assert "Cancel" not in api.log, api.log


async def registered(client: httpx.AsyncClient, name: str) -> bool:
    answer = await client.post("/actors", data={"image": "a/b", "name": name})
    return answer.status_code == 201


async def test_who_does_not_keep_up_is_let_go_and_holds_up_nobody(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    # It falls out of the ring; the time for one write is not what ends it, however slow this is.
    settings = {"ring_events": 256, "stream_write_seconds": 50}
    api = Api(tmp_path, nats_server.url, NO_DATABASE, **settings)
    count, size = 400, 60_000
    async for log in opened(nats_server.url):
        with running(api):
            await log.append(b.envelope_of(b.registered("slow_0")))
            async with (
                sse.stream(api.port, "/events?after=0") as stalled,
                sse.stream(api.port, "/events?after=0") as healthy,
            ):
                await stalled.take(1)
                await healthy.take(1)
                seen = asyncio.create_task(healthy.take(count, 60))
                for n in range(count):
                    await log.append(b.envelope_of(b.received(n, "slow_0", "x" * size)))
                ordinals = [event.data["data"]["ordinal"] for event in await seen]
                assert ordinals == list(range(count))
                rest = [event async for event in stalled.all(30)]
                word = rest.pop()
                assert word.type == "dropped"
                assert "reason" in word.data
                assert word.data["resume_after"] == rest[-1].id
                assert [e.data["data"]["ordinal"] for e in rest] == list(range(len(rest)))
                assert len(rest) < count
            assert "Traceback" not in api.log, api.log


async def test_many_at_once_of_whom_some_are_stalled(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    """``bench/subscribers.py`` in small."""
    api = Api(tmp_path, nats_server.url, NO_DATABASE, stream_write_seconds=0.5)
    many, stalled, count = 60, 6, 150
    async for log in opened(nats_server.url):
        async with AsyncExitStack() as streams:
            with running(api):
                await log.append(b.envelope_of(b.registered("many_0")))
                opened_now = [sse.stream(api.port, "/events?after=0") for _ in range(many)]
                readers = [await streams.enter_async_context(one) for one in opened_now]
                healthy = readers[stalled:]
                seen = [asyncio.create_task(reader.take(count + 1, 60)) for reader in healthy]
                for n in range(count):
                    await log.append(b.envelope_of(b.received(n, "many_0", "x" * 20_000)))
                for task in seen:
                    ids = [event.id for event in await task]
                    assert ids == list(range(1, count + 2))
    assert "Traceback" not in api.log, api.log
