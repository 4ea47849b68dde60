"""One run of the past, with real servers: again, side by side, and why."""

import asyncio
from collections.abc import AsyncGenerator, Iterator

import httpx
import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamOutputLog
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import draft
from abaco_proto.output import Output
from api_stage import Api, Json, becomes_ready, error_of, result_of, whole_stage
from deadlines import LIMIT_SECONDS
from servers import PostgresServer


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    with whole_stage(shared_postgres, "api_runs") as running:
        yield running
        assert "Traceback" not in running.log, running.log


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


async def append(log: EventLog, *events: ev.Event) -> dict[str, str]:
    """What other services would have written; the header that waits for it."""
    sequences = [await log.append(b.envelope_of(event)) for event in events]
    return {"Abaco-After": str(sequences[-1])}


async def output(connection: Connection, execution_id: str, text: bytes) -> None:
    actor_id = execution_id.rpartition("_exc_")[0]
    chunk = Output(
        tenant="default",
        actor_id=actor_id,
        execution_id=execution_id,
        attempt=1,
        offset=0,
        data=text,
    )
    await JetStreamOutputLog(connection).write(chunk)


class Stage:
    """An actor with a state and a first run that ended."""

    def __init__(self, actor_id: str, registered: int, state: int) -> None:
        self.actor_id = actor_id
        self.registered = registered
        self.state = state

    def path(self, ordinal: int, rest: str = "") -> str:
        return f"/actors/{self.actor_id}/executions/{self.actor_id}_exc_{ordinal}{rest}"


async def a_run(client: httpx.AsyncClient, connection: Connection, name: str) -> Stage:
    actor = {"image": "a/b:1", "name": name, "default_environment": {"A": "1"}}
    created = await client.post("/actors", json=actor)
    actor_id = result_of(created, 201)["id"]
    registered = int(created.headers["Abaco-Sequence"])
    set_ = await client.post(f"/actors/{actor_id}/state", json={"state": {"n": 1}})
    stage = Stage(actor_id, registered, int(set_.headers["Abaco-Sequence"]))
    sent = await client.post(f"/actors/{actor_id}/messages?B=2", data={"message": "go"})
    await run(connection, stage, 0, int(sent.headers["Abaco-Sequence"]))
    await output(connection, f"{actor_id}_exc_0", b"one\ntwo\n")
    return stage


async def run(connection: Connection, stage: Stage, ordinal: int, message: int) -> None:
    log, actor_id = JetStreamEventLog(connection), stage.actor_id
    worker_id = f"{actor_id}_wkr_{ordinal}"
    assigned = b.assigned(
        ordinal,
        actor_id,
        message_sequence=message,
        actor_sequence=stage.registered,
        worker_id=worker_id,
    )
    started = b.started(ordinal, actor_id, state_sequence=stage.state, worker_id=worker_id)
    finished = b.finished(ordinal, actor_id, worker_id=worker_id, log_bytes=8)
    worker_events = (b.requested(ordinal, actor_id), b.ready(ordinal, actor_id))
    await append(log, *worker_events, assigned, started, finished)


async def test_a_run_is_run_again_with_what_it_was_given(
    client: httpx.AsyncClient, connection: Connection
) -> None:
    stage = await a_run(client, connection, "again")
    log = JetStreamEventLog(connection)
    await client.post(f"/actors/{stage.actor_id}/state", json={"state": {"n": 2}})
    await client.put(f"/actors/{stage.actor_id}", json={"default_environment": {"A": "9"}})
    missing = error_of(await client.get(stage.path(0, "/diff")), 404)
    assert "was not run again" in missing["msg"]

    answer = await client.post(stage.path(0, "/rerun"))
    assert result_of(answer, 201) == {
        "execution_id": f"{stage.actor_id}_exc_1",
        "rerun_of": f"{stage.actor_id}_exc_0",
        "image": "sha256:0123",
    }
    recorded = await log.at(int(answer.headers["Abaco-Sequence"]))
    assert recorded is not None
    assert recorded.event == b.received(
        1,
        stage.actor_id,
        message="go",
        environment={"B": "2"},
        rerun=ev.Rerun(
            execution_id=f"{stage.actor_id}_exc_0",
            actor_sequence=stage.registered,
            state_sequence=stage.state,
            image="sha256:0123",
        ),
    )
    waiting = error_of(await client.post(stage.path(1, "/rerun")), 409)
    assert "only what has ended" in waiting["msg"]

    await run(connection, stage, 1, recorded.sequence)
    await output(connection, f"{stage.actor_id}_exc_1", b"one\n2!!\n")
    last = await append(log, b.joined("h9"))
    for path in (stage.path(0, "/diff"), stage.path(1, "/diff")):
        compared = await client.get(path, headers=last)
        found = result_of(compared)
        assert compared.json()["msg"] == "Same inputs."
        assert [side["execution_id"][-1] for side in found["executions"]] == ["0", "1"]
        assert found["inputs"]["same"] == ["image", "message", "environment", "state"]
        assert (found["same_exit_code"], found["same_output"]) == (True, False)
        assert found["output"][-2:] == ["-two", "+2!!"]
        assert found["executions"][0]["runtime"] == 2.0045


async def test_other_inputs_are_named(client: httpx.AsyncClient, connection: Connection) -> None:
    stage = await a_run(client, connection, "other")
    sent = await client.post(f"/actors/{stage.actor_id}/messages?B=3", data={"message": "stop"})
    await run(connection, stage, 1, int(sent.headers["Abaco-Sequence"]))
    last = await append(JetStreamEventLog(connection), b.joined("h8"))
    path = stage.path(0, f"/diff?with={stage.actor_id}_exc_1")
    compared = await client.get(path, headers=last)
    assert compared.json()["msg"] == "Not the same inputs: message, environment."
    error_of(await client.get(stage.path(0, f"/diff?with={stage.actor_id}_exc_9")), 404)
    error_of(await client.get(stage.path(0, "/diff?with=bar_0_exc_9")), 404)


async def test_what_never_ran_is_not_run_again(
    client: httpx.AsyncClient, connection: Connection
) -> None:
    created = await client.post("/actors", json={"image": "a/b", "name": "never"})
    actor_id = result_of(created, 201)["id"]
    await client.post(f"/actors/{actor_id}/messages", data={"message": "x"})
    purged = ev.InboxPurged(actor_id=actor_id, up_to_ordinal=0)
    last = await append(JetStreamEventLog(connection), purged)
    path = f"/actors/{actor_id}/executions/{actor_id}_exc_0/rerun"
    assert "never ran" in error_of(await client.post(path, headers=last), 409)["msg"]
    error_of(await client.post(path.replace("exc_0", "exc_7")), 404)


async def test_why(client: httpx.AsyncClient, connection: Connection) -> None:
    stage = await a_run(client, connection, "why")
    answer = await client.post("/actors", data={"image": "a/b", "name": "listener"})
    listener = result_of(answer, 201)["id"]
    pattern = {"event_pattern": f"{stage.actor_id}.execution.finished"}
    result_of(await client.post(f"/actors/{listener}/subscriptions", json=pattern), 201)
    sent = await client.post(f"/actors/{stage.actor_id}/messages", data={"message": "more"})
    waiting = result_of(await client.get(stage.path(1, "/why")))
    assert waiting["standing"]["reason"] == "its_turn"
    assert waiting["cause"]["kind"] == "request"
    assert waiting["cause"]["id"].startswith("req-")
    await run(connection, stage, 1, int(sent.headers["Abaco-Sequence"]))

    found: Json = {}
    async with asyncio.timeout(LIMIT_SECONDS):
        while not found.get("caused"):
            found = result_of(await client.get(stage.path(1, "/why")))
    assert found["standing"] == {
        "state": "ended",
        "reason": "exit",
        "says": "It ran to its end: exit code 0.",
    }
    types = [step["type"] for step in found["steps"]]
    assert types[0] == "message.received"
    assert types[-3:] == ["execution.assigned", "execution.started", "execution.finished"]
    assert [s["seq"] for s in found["steps"]] == sorted(s["seq"] for s in found["steps"])
    [effect] = found["caused"]
    assert (effect["actor_id"], effect["kind"]) == (listener, "subscription")
    made = f"/actors/{listener}/executions/{effect['execution_id']}/why"
    cause = result_of(await client.get(made))["cause"]
    assert (cause["kind"], cause["sequence"]) == ("subscription", found["steps"][-1]["seq"])
    error_of(await client.get(stage.path(9, "/why")), 404)
    error_of(await client.get("/actors/nobody_0/executions/nobody_0_exc_0/why"), 404)


async def test_who_waits_for_a_subscription_is_found_by_its_chain(
    client: httpx.AsyncClient, connection: Connection
) -> None:
    """What a person cannot see in one answer, the events have: one correlation id a chain."""
    log = JetStreamEventLog(connection)
    answer = await client.post("/actors", data={"image": "a/b", "name": "chain"})
    actor_id = result_of(answer, 201)["id"]
    subscription = {"event_id": "host.joined"}
    result_of(await client.post(f"/actors/{actor_id}/subscriptions", json=subscription), 201)
    joined = draft(
        b.joined("h7"), tenant="default", time=b.T0, causation_id="x", correlation_id="chain-7"
    )
    await log.append(joined)
    found: list[Json] = []
    async with asyncio.timeout(LIMIT_SECONDS):
        while not found:
            page = result_of(await client.get(f"/actors/{actor_id}/events?type=message.received"))
            found = [event for event in page if event["correlation_id"] == "chain-7"]
    assert found[0]["hops"] == 1
    assert found[0]["data"]["sender"] == "_host-h7"
