"""Subscriptions of actors with real servers: once each, however many processes, whoever dies."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.names import inbox_filter
from api_stage import Api, error_of, eventually, result_of, running
from deadlines import LIMIT_SECONDS
from servers import NatsServer, scratch_folder

NO_DATABASE = "postgresql://abaco@127.0.0.1:9/none"
COUNT = 300


@pytest.fixture(scope="module")
def lone_api() -> Iterator[Api]:
    with scratch_folder() as folder:
        nats = NatsServer(folder)
        api = Api(folder, nats.url, NO_DATABASE)
        try:
            nats.start()
            with running(api):
                yield api
        finally:
            nats.kill()


async def inbox(log: EventLog, actor_id: str) -> list[ev.MessageReceived]:
    history = log.read([inbox_filter("default", actor_id)])
    events = [recorded.event async for batch in history for recorded in batch]
    return [event for event in events if isinstance(event, ev.MessageReceived)]


async def test_each_event_once_while_processes_and_the_log_are_killed(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    apis = [Api(tmp_path, nats_server.url, NO_DATABASE) for _ in range(3)]
    connection = Connection(nats_server.url, name="test", timeout=10)
    await connection.open()
    log = JetStreamEventLog(connection)
    with running(*apis):
        async with httpx.AsyncClient(base_url=apis[0].url, timeout=LIMIT_SECONDS) as client:
            for name in ("src", "dst"):
                answer = await client.post("/actors", data={"image": "a/b", "name": name})
                result_of(answer, 201)
            pattern = {"event_pattern": "src_*.execution.*", "event_id": "execution.finished"}
            added = await client.post("/actors/dst_0/subscriptions", json=pattern)
            assert result_of(added, 201)["event_pattern"] == "src_*.execution.finished"
        writing = asyncio.create_task(write(log))
        for turn in range(2):
            for api in apis[1:]:
                await eventually(partial(reached, log, turn * COUNT // 3))
                api.kill()
                await asyncio.to_thread(api.start)
            if turn == 1:
                nats_server.kill()
                nats_server.start()
        sources = await writing
        apis[0].kill()
        await eventually(lambda: reached(log, COUNT), 30)
    messages = await inbox(log, "dst_0")
    assert [m.source_sequence for m in messages] == sources
    assert [m.ordinal for m in messages] == list(range(COUNT))
    await connection.close()


async def write(log: EventLog) -> list[int]:
    sources = []
    for n in range(COUNT):
        drafted = b.envelope_of(b.finished(n, "src_0"))
        while True:
            try:
                sources.append(await log.append(drafted))
                break
            except Exception:  # noqa: BLE001 - the log is killed meanwhile
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.005)
    return sources


async def reached(log: EventLog, count: int) -> bool:
    try:
        last = await log.last(inbox_filter("default", "dst_0"))
    except Exception:  # noqa: BLE001 - see above
        return False
    return last is not None and getattr(last.event, "ordinal", 0) + 1 >= count


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("event_pattern", {}),
        ("event_pattern", {"event_pattern": ""}),
        ("event_pattern", {"event_pattern": None}),
        ("event_pattern", {"event_pattern": "foo_0"}),
        ("event_pattern", {"event_pattern": "foo_0.execution.finish"}),
        ("event_pattern", {"event_pattern": "foo.execution.finished"}),
        ("event_pattern", {"event_pattern": "a" * 300}),
        ("event_id", {"event_id": "finished"}),
        ("event_id", {"event_id": "foo_0.execution.finished"}),
        ("event_id", {"event_pattern": "foo_0.actor.*", "event_id": "execution.finished"}),
        ("event_id", {"event_pattern": "_host-h1.>", "event_id": "execution.finished"}),
    ],
)
def test_a_subscription_to_nothing_is_a_mistake(
    lone_api: Api, name: str, body: dict[str, Any]
) -> None:
    answer = httpx.post(f"{lone_api.url}/actors/foo_0/subscriptions", json=body)
    assert error_of(answer, 400)["msg"].startswith(name)


def test_a_subscription_is_made_and_ended(lone_api: Api) -> None:
    with httpx.Client(base_url=lone_api.url) as client:
        actor = {"image": "a/b", "name": "listener"}
        actor_id = result_of(client.post("/actors", data=actor), 201)["id"]
        path = f"/actors/{actor_id}/subscriptions"
        added = result_of(client.post(path, data={"event_id": "execution.finished"}), 201)
        assert added["event_pattern"] == "*.execution.finished"
        gone = client.delete(f"{path}/{added['subscription_id']}")
        assert gone.json()["msg"] == "Subscription deleted successfully."
        error_of(client.delete(f"{path}/{added['subscription_id']}"), 404)
        error_of(client.delete("/actors/nobody_0/subscriptions/x"), 404)
