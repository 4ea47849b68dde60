"""The contract over real servers: answers as typed, and reads that show one's own writes."""

from collections.abc import AsyncGenerator, Iterator

import httpx
import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamOutputLog
from abaco_jetstream.ports import EventLog
from abaco_proto.events import Event, Isolation
from abaco_proto.names import actor_filter
from abaco_proto.output import Output
from api_stage import Api, Json, becomes_ready, error_of, result_of, whole_stage
from deadlines import LIMIT_SECONDS
from servers import PostgresServer

IMAGE = "jstubbs/abaco_test"


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    with whole_stage(shared_postgres, "api_contract") as running:
        yield running


@pytest.fixture
async def client(api: Api) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
        await becomes_ready(client)
        yield client


@pytest.fixture
async def connection(api: Api) -> AsyncGenerator[Connection, None]:
    connection = Connection(api.nats_url, name="test")
    await connection.open()
    yield connection
    await connection.close()


async def register(client: httpx.AsyncClient, name: str, **more: str) -> str:
    answer = await client.post("/actors", data={"image": IMAGE, "name": name, **more})
    actor_id: str = result_of(answer, 201)["id"]
    return actor_id


async def append(log: EventLog, *events: Event) -> int:
    """What other services would have written; the sequence of the last."""
    return [await log.append(b.envelope_of(event)) for event in events][-1]


async def test_the_five_steps(client: httpx.AsyncClient, connection: Connection) -> None:
    created = await client.post(f"{client.base_url}//actors", data={"image": IMAGE, "name": "foo"})
    assert created.json()["msg"] == "Actor created successfully."
    contract: Json = {
        "description": None,
        "executions": {},
        "id": "foo_0",
        "image": IMAGE,
        "name": "foo",
        "state": "",
        "status": "SUBMITTED",
        "subscriptions": [],
    }
    assert contract.items() <= result_of(created, 201).items()
    assert await register(client, "foo") == "foo_1"

    log = JetStreamEventLog(connection)
    sequence = await append(log, b.requested(), b.ready())
    shown = await client.get("/actors/foo_0", headers={"Abaco-After": str(sequence)})
    assert shown.json()["msg"] == "Actor retrieved successfully."
    assert {**contract, "status": "READY"}.items() <= result_of(shown).items()

    sent = await client.post("/actors/foo_0/messages?B=2", data={"message": "execute yourself"})
    assert sent.json()["msg"] == "The request was successful"
    assert result_of(sent) == {"execution_id": "foo_0_exc_0", "msg": "execute yourself"}
    assert result_of(await client.get("/actors/foo_0/messages")) == {"messages": 1}
    received = await log.at(int(sent.headers["Abaco-Sequence"]))
    assert received is not None
    assert received.event == b.received(0, environment={"B": "2"})

    text = b"Contents of MSG: \xff execute\n"
    run = (b.assigned(), b.started(), b.finished(log_bytes=len(text)))
    sequence = await append(log, *run)
    listed = await client.get("/actors/foo_0/executions", headers={"Abaco-After": str(sequence)})
    assert listed.json()["msg"] == "Actor executions retrieved successfully."
    assert result_of(listed) == {
        "actor_id": "foo_0",
        "ids": ["foo_0_exc_0"],
        "total_cpu": 9_000_000,
        "total_executions": 1,
        "total_complete": 1,
        "total_error": 0,
        "total_halted": 0,
        "total_purged": 0,
        "total_io": 736,
        "total_runtime": 2.0045,
    }
    execution = result_of(await client.get("/actors/foo_0/executions/foo_0_exc_0"))
    assert execution["status"] == "COMPLETE"
    assert execution["exit_code"] == 0
    assert execution["worker_id"] == "foo_0_wkr_0"

    await write_output(connection, 0, text[:9])
    early = await client.get("/actors/foo_0/executions/foo_0_exc_0/logs")
    assert early.json()["msg"] == f"Logs retrieved; 9 of {len(text)} bytes are stored."
    await write_output(connection, 9, text[9:])
    logs = await client.get("/actors/foo_0/executions/foo_0_exc_0/logs")
    assert logs.json()["msg"] == "Logs retrieved successfully."
    assert result_of(logs) == "Contents of MSG: \ufffd execute\n"


async def write_output(connection: Connection, offset: int, data: bytes) -> None:
    await JetStreamOutputLog(connection).write(
        Output(
            tenant="default",
            actor_id="foo_0",
            execution_id="foo_0_exc_0",
            attempt=1,
            offset=offset,
            data=data,
        )
    )


async def test_reads_show_what_was_just_written(client: httpx.AsyncClient) -> None:
    for n in range(20):
        actor_id = await register(client, "quick")
        assert result_of(await client.get(f"/actors/{actor_id}"))["id"] == actor_id
        await client.post(f"/actors/{actor_id}/state", json={"state": {"n": n}})
        state = result_of(await client.get(f"/actors/{actor_id}/state"))
        assert state == {"state": {"n": n}, "version": 1}
        await client.delete(f"/actors/{actor_id}")
        error_of(await client.get(f"/actors/{actor_id}"), 404)
        assert actor_id not in {a["id"] for a in result_of(await client.get("/actors"))}


async def test_an_actor_is_changed_and_deleted(client: httpx.AsyncClient) -> None:
    actor_id = await register(client, "change", default_environment='{"A": "1"}')
    answer = await client.put(f"/actors/{actor_id}/", json={"image": "a/b", "description": "é"})
    assert answer.json()["msg"] == "Actor updated successfully."
    assert result_of(answer)["revision"] == 2
    shown = result_of(await client.get(f"/actors/{actor_id}"))
    assert (shown["image"], shown["description"]) == ("a/b", "é")
    assert shown["default_environment"] == {"A": "1"}
    gone = await client.delete(f"/actors/{actor_id}")
    assert gone.json()["msg"] == "Actor deleted successfully."
    for path in ("", "/state", "/messages", "/executions", "/workers", "/subscriptions"):
        error_of(await client.get(f"/actors/{actor_id}{path}"), 404)
    for path in ("/messages", "/state"):
        body = {"message" if path == "/messages" else "state": "x"}
        error_of(await client.post(f"/actors/{actor_id}{path}", json=body), 404)


async def test_a_long_list_says_where_it_goes_on(client: httpx.AsyncClient) -> None:
    actor_id = await register(client, "long")
    for n in range(7):
        sent = await client.post(f"/actors/{actor_id}/messages", data={"message": str(n)})
    last = int(sent.headers["Abaco-Sequence"])
    for more in ({}, {"as_of": str(last)}):
        path, pages, answer = f"/actors/{actor_id}/executions?limit=3", [], None
        if more:
            path += f"&as_of={last}"
        while path:
            answer = await client.get(path)
            page = result_of(answer)
            assert page["total_executions"] == 7
            pages.append(page["ids"])
            assert answer.headers.get("Abaco-Next") == (
                None if len(pages) == 3 else str(3 * len(pages))
            )
            path = answer.links["next"]["url"] if "next" in answer.links else ""
        assert [len(ids) for ids in pages] == [3, 3, 1]
        assert [one for ids in pages for one in ids] == [f"{actor_id}_exc_{n}" for n in range(7)]
    exact = await client.get(f"/actors/{actor_id}/executions?limit=7")
    assert "Link" not in exact.headers
    for n in range(3):
        await register(client, f"many{n}")
    listed, path = [], "/actors?limit=2"
    while path:
        answer = await client.get(path)
        listed += [found["id"] for found in result_of(answer)]
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    assert listed == [found["id"] for found in result_of(await client.get("/actors"))]
    assert len(listed) > 3


async def test_workers(client: httpx.AsyncClient, connection: Connection) -> None:
    actor_id = await register(client, "workers")
    log = JetStreamEventLog(connection)
    ready = b.ready(0, actor_id, isolation=Isolation.CONTAINER, isolation_reason="no launcher")
    worker_events = (b.requested(0, actor_id), ready, b.requested(1, actor_id))
    sequence = await append(log, *worker_events)
    after = {"Abaco-After": str(sequence)}
    first, second = result_of(await client.get(f"/actors/{actor_id}/workers", headers=after))
    assert first["status"] == "READY"
    assert {"image", "location", "cid", "ch_name", "status", "last_update"} <= set(first)
    assert (first["isolation"], first["isolation_reason"]) == ("container", "no launcher")
    assert second["status"] == "REQUESTED"
    assert (second["isolation"], second["isolation_reason"]) == (None, "")
    assert first["ch_name"] != second["ch_name"]
    for name in (second["ch_name"], second["ch_name"].replace("_", "%5F")):
        found = result_of(await client.get(f"/actors/{actor_id}/workers/{name}"))
        assert found["id"] == second["id"]

    stopping = await client.delete(f"/actors/{actor_id}/workers/{first['ch_name']}")
    assert result_of(stopping) is None
    shown = await client.get(f"/actors/{actor_id}/workers/{first['id']}")
    assert result_of(shown)["status"] == "STOPPING"
    sequence = await log.append(b.envelope_of(b.stopped(0, actor_id)))
    error_of(await client.delete(f"/actors/{actor_id}/workers/{first['id']}"), 409)
    error_of(await client.delete(f"/actors/{actor_id}/workers/{actor_id}_wkr_7"), 404)

    scaled = await client.post(f"/actors/{actor_id}/workers", data={"num": "6"})
    assert result_of(scaled) == {"actor_id": actor_id, "min_workers": 6, "max_workers": 6}
    updates = [r async for batch in log.read([actor_filter("default", actor_id)]) for r in batch]
    await client.post(f"/actors/{actor_id}/workers", data={"num": "6"})
    again = [r async for batch in log.read([actor_filter("default", actor_id)]) for r in batch]
    assert again == updates, "nothing was stopped since, and nothing has changed"


async def test_subscriptions(client: httpx.AsyncClient) -> None:
    actor_id = await register(client, "listener")
    pattern = {"event_pattern": "foo_0.execution.finished"}
    added = result_of(await client.post(f"/actors/{actor_id}/subscriptions", json=pattern), 201)
    assert result_of(await client.get(f"/actors/{actor_id}/subscriptions")) == [added]
    assert result_of(await client.get(f"/actors/{actor_id}"))["subscriptions"] == [added]


async def test_a_long_list_comes_in_pages(client: httpx.AsyncClient) -> None:
    actor_id = await register(client, "pages")
    for _ in range(5):
        await client.post(f"/actors/{actor_id}/messages", data={"message": "x"})
    page = await client.get(f"/actors/{actor_id}/executions?limit=2&offset=1")
    assert result_of(page)["ids"] == [f"{actor_id}_exc_1", f"{actor_id}_exc_2"]
    assert result_of(page)["total_executions"] == 5


async def test_every_kind_of_body_says_the_same(client: httpx.AsyncClient) -> None:
    actor_id = await register(client, "kinds")
    path = f"/actors/{actor_id}/messages"
    answers = [
        await client.post(path, data={"message": "é=&+ 😀"}),
        await client.post(path, files={"message": (None, "é=&+ 😀")}),
        await client.post(path, json={"message": "é=&+ 😀"}),
    ]
    assert [result_of(a)["msg"] for a in answers] == ["é=&+ 😀"] * 3
    structured = await client.post(path, json={"message": {"a": [1, None]}})
    assert result_of(structured)["msg"] == {"a": [1, None]}


async def test_the_empty_state_of_many_things(client: httpx.AsyncClient) -> None:
    actor_id = await register(client, "empty")
    assert result_of(await client.get(f"/actors/{actor_id}/workers")) == []
    assert result_of(await client.get(f"/actors/{actor_id}/state")) == {"state": "", "version": 0}
    assert result_of(await client.get(f"/actors/{actor_id}/executions"))["ids"] == []


async def test_what_was_never_written_is_not_waited_for(client: httpx.AsyncClient) -> None:
    answer = await client.get("/actors", headers={"Abaco-After": "123456789"})
    assert "Abaco-After" in error_of(answer, 400)["msg"]


async def test_an_update_clears_an_error(client: httpx.AsyncClient, connection: Connection) -> None:
    actor_id = await register(client, "broken")
    log = JetStreamEventLog(connection)
    sequence = await append(log, b.requested(0, actor_id), b.failed(0, actor_id))
    shown = await client.get(f"/actors/{actor_id}", headers={"Abaco-After": str(sequence)})
    assert result_of(shown)["status"] == "ERROR"
    assert "not found" in result_of(shown)["status_message"]
    same = await client.put(f"/actors/{actor_id}", data={"image": IMAGE})
    assert result_of(same)["status"] == "SUBMITTED"
    assert result_of(await client.get(f"/actors/{actor_id}"))["status"] == "SUBMITTED"
