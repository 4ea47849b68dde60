"""Orders over real servers: limits, halts, purges, retries, and what answers say of them."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx
import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_proto import events as ev
from abaco_proto.names import history_filter
from api_stage import Api, becomes_ready, error_of, result_of, running, whole_stage
from deadlines import LIMIT_SECONDS
from servers import NatsServer, PostgresServer, scratch_folder

IMAGE = "jstubbs/abaco_test"


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    with whole_stage(shared_postgres, "api_control") as found:
        yield found


@pytest.fixture
async def client(api: Api) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
        await becomes_ready(client)
        yield client


@pytest.fixture
async def log(api: Api) -> AsyncGenerator[JetStreamEventLog, None]:
    connection = Connection(api.nats_url, name="test")
    await connection.open()
    yield JetStreamEventLog(connection)
    await connection.close()


async def actor(client: httpx.AsyncClient, name: str, messages: int = 0, **more: Any) -> str:
    answer = await client.post("/actors", json={"image": IMAGE, "name": name, **more})
    actor_id: str = result_of(answer, 201)["id"]
    for n in range(messages):
        await client.post(f"/actors/{actor_id}/messages", data={"message": str(n)})
    return actor_id


async def append(log: JetStreamEventLog, *events: ev.Event) -> dict[str, str]:
    """What other services would have written; the header that waits for it."""
    sequence = [await log.append(b.envelope_of(event)) for event in events][-1]
    return {"Abaco-After": str(sequence)}


async def kinds(log: JetStreamEventLog, actor_id: str) -> list[str]:
    history = log.read([history_filter("default", actor_id)])
    return [ev.type_of(r.event) async for batch in history for r in batch]


async def test_limits_are_kept_and_shown(client: httpx.AsyncClient) -> None:
    said: dict[str, Any] = {
        "mem_limit": "512m",
        "max_cpus": 0.5,
        "max_run_seconds": 60,
        "log_ex": 3600,
    }
    actor_id = await actor(client, "limits", **said)
    shown = result_of(await client.get(f"/actors/{actor_id}"))
    assert shown["mem_limit"] == 512 * 1024 * 1024
    assert (shown["max_cpus"], shown["max_run_seconds"], shown["log_ex"]) == (0.5, 60, 3600)
    assert (shown["max_processes"], shown["privileged"]) == (None, False)
    form = {"mem_limit": "", "max_processes": "16"}
    changed = result_of(await client.put(f"/actors/{actor_id}", data=form))
    assert (changed["mem_limit"], changed["max_processes"]) == (None, 16)
    assert changed["revision"] == 1


async def test_an_isolation_is_kept_shown_and_given_back_to_the_host(
    client: httpx.AsyncClient, log: JetStreamEventLog
) -> None:
    actor_id = await actor(client, "isolated", isolation="container")
    path = f"/actors/{actor_id}"
    assert result_of(await client.get(path))["isolation"] == "container"
    changed = await client.put(path, data={"isolation": "sandbox"})
    assert (result_of(changed)["isolation"], result_of(changed)["revision"]) == ("sandbox", 1)
    back = await client.put(path, json={"isolation": None})
    assert result_of(back)["isolation"] is None
    headers = {"Abaco-After": back.headers["Abaco-Sequence"]}
    assert result_of(await client.get(path, headers=headers))["isolation"] is None

    listed = result_of(await client.get(f"{path}/events"))
    stored = [event["data"]["definition"].get("isolation", "absent") for event in listed]
    assert stored == ["container", "sandbox", "absent"]
    for event, isolation in zip(listed, ("container", "sandbox", None), strict=True):
        then = await client.get(path, params={"as_of": event["seq"]})
        assert result_of(then)["isolation"] == isolation

    error = error_of(await client.put(path, json={"isolation": "vm"}), 400)
    assert error["msg"] == "isolation: expected sandbox or container, or null"


async def test_privileged_containers_need_a_setting(client: httpx.AsyncClient) -> None:
    body = {"image": IMAGE, "name": "mighty", "privileged": True}
    error = error_of(await client.post("/actors", json=body), 400)
    assert error["msg"].startswith("privileged: ")
    assert "ABACO_ALLOW_PRIVILEGED" in error["msg"]


async def test_what_waits_is_halted_at_once(
    client: httpx.AsyncClient, log: JetStreamEventLog
) -> None:
    actor_id = await actor(client, "waits", 2)
    path = f"/actors/{actor_id}/executions/{actor_id}_exc_1"
    first = await client.delete(path)
    assert first.json()["msg"] == "Execution is being halted."
    again = await client.delete(path)
    assert again.headers["Abaco-Sequence"] == first.headers["Abaco-Sequence"]
    shown = result_of(await client.get(path))
    assert (shown["status"], shown["status_message"]) == ("HALTED", "halted before it ran")
    assert result_of(await client.get(f"/actors/{actor_id}/messages")) == {"messages": 1}
    listed = result_of(await client.get(f"/actors/{actor_id}/executions"))
    assert (listed["total_executions"], listed["total_halted"]) == (2, 1)
    assert await kinds(log, actor_id) == [
        *("actor.registered", "message.received", "message.received", "execution.halt_requested")
    ]


async def test_what_runs_is_asked_to_end(client: httpx.AsyncClient, log: JetStreamEventLog) -> None:
    actor_id = await actor(client, "runs", 1)
    path = f"/actors/{actor_id}/executions/{actor_id}_exc_0"
    await append(log, b.assigned(0, actor_id), b.started(0, actor_id))
    result_of(await client.delete(path))
    shown = result_of(await client.get(path))
    assert (shown["status"], shown["halt_requested"]) == ("RUNNING", True)
    end = b.final_state(ended_by=ev.EndedBy.HALT, signal=15)
    after = await append(log, b.finished(0, actor_id, exit_code=143, final_state=end))
    shown = result_of(await client.get(path, headers=after))
    assert (shown["status"], shown["final_state"]["ended_by"]) == ("HALTED", "halt")


async def test_what_ended_or_never_was_cannot_be_halted(
    client: httpx.AsyncClient, log: JetStreamEventLog
) -> None:
    actor_id = await actor(client, "ended", 1)
    executions = f"/actors/{actor_id}/executions"
    after = await append(log, b.assigned(0, actor_id), b.finished(0, actor_id))
    result_of(await client.get(f"{executions}/{actor_id}_exc_0", headers=after))
    assert "COMPLETE" in error_of(await client.delete(f"{executions}/{actor_id}_exc_0"), 409)["msg"]
    for path in (f"{executions}/{actor_id}_exc_1", f"{executions}/x", "/actors/no_0/executions/x"):
        error_of(await client.delete(path), 404)
        error_of(await client.post(f"{path}/retry"), 404)
    error_of(await client.delete(f"{executions}/{actor_id}_exc_0?now=1"), 400)


async def test_what_a_deleted_actor_ran_stays_readable_and_can_be_halted(
    client: httpx.AsyncClient, log: JetStreamEventLog
) -> None:
    actor_id = await actor(client, "gone", 4)
    paths = [f"/actors/{actor_id}/executions/{actor_id}_exc_{n}" for n in range(5)]
    runs = [event for n in (0, 1) for event in (b.assigned(n, actor_id), b.started(n, actor_id))]
    await append(log, *runs, b.finished(0, actor_id, exit_code=3, log_bytes=0))
    deleted = await client.delete(f"/actors/{actor_id}")
    assert deleted.json()["msg"] == "Actor deleted successfully."
    late = await append(log, b.received(4, actor_id))  # it was on its way
    shown = [result_of(await client.get(path, headers=late)) for path in paths]
    statuses = ["COMPLETE", "RUNNING", "PURGED", "PURGED", "PURGED"]
    assert [each["status"] for each in shown] == statuses
    assert (shown[0]["exit_code"], shown[4]["status_message"]) == (3, "the actor was deleted")
    before = {"as_of": late["Abaco-After"]}
    for path, then in zip(paths, shown, strict=True):
        assert result_of(await client.get(path, params=before)) == then
        assert result_of(await client.get(f"{path}/why"))["status"] == then["status"]
    assert result_of(await client.get(f"{paths[0]}/logs")) == ""
    assert (await client.delete(paths[1])).json()["msg"] == "Execution is being halted."
    assert result_of(await client.get(paths[1]))["halt_requested"] is True
    for path in (paths[0], paths[2]):
        error_of(await client.delete(path), 409)
        for verb in ("rerun", "retry"):
            missing = error_of(await client.post(f"{paths[0]}/{verb}"), 404)["msg"]
            assert missing == f"actor_id: there is no actor '{actor_id}'"
    body = {"event_pattern": "foo_0.execution.finished"}
    error_of(await client.post(f"/actors/{actor_id}/subscriptions", json=body), 404)
    error_of(await client.post(f"/actors/{actor_id}/messages", data={"message": "x"}), 404)


async def test_an_inbox_is_purged(client: httpx.AsyncClient, log: JetStreamEventLog) -> None:
    actor_id = await actor(client, "full")
    path = f"/actors/{actor_id}/messages"
    assert result_of(await client.delete(path)) is None
    for n in range(3):
        await client.post(path, data={"message": str(n)})
    await append(log, b.assigned(0, actor_id), b.started(0, actor_id))
    purged = await client.delete(path)
    assert purged.json()["msg"] == "Messages purged successfully."
    assert result_of(await client.get(path)) == {"messages": 0}
    listed = result_of(await client.get(f"/actors/{actor_id}/executions"))
    assert (listed["total_purged"], listed["total_complete"]) == (2, 0)
    again = await client.delete(path)
    assert again.headers["Abaco-Sequence"] == purged.headers["Abaco-Sequence"]
    error_of(await client.delete("/actors/nobody_0/messages"), 404)


async def test_what_was_abandoned_is_tried_again(
    client: httpx.AsyncClient, log: JetStreamEventLog
) -> None:
    actor_id = await actor(client, "broken", 1)
    path = f"/actors/{actor_id}/executions/{actor_id}_exc_0"
    error_of(await client.post(f"{path}/retry"), 409)
    why = b.abandoned(0, actor_id, attempts=1, reason="the engine is gone")
    after = await append(log, b.assigned(0, actor_id), why)
    shown = result_of(await client.get(path, headers=after))
    assert (shown["status"], shown["status_message"]) == ("ERROR", "the engine is gone")
    error_of(await client.delete(path), 409)
    again = await client.post(f"{path}/retry")
    assert again.json()["msg"] == "Execution is being tried again."
    assert result_of(await client.get(path))["status"] == "SUBMITTED"
    error_of(await client.post(f"{path}/retry"), 409)
    result_of(await client.delete(path))
    assert result_of(await client.get(path))["status"] == "HALTED"


async def test_the_timeline_of_an_execution(
    client: httpx.AsyncClient, log: JetStreamEventLog
) -> None:
    actor_id = await actor(client, "timeline", 1)
    path = f"/actors/{actor_id}/executions/{actor_id}_exc_0"
    timeline = result_of(await client.get(path))["timeline"]
    assert timeline.pop("accepted")
    assert set(timeline.values()) == {None}
    started = b.started(0, actor_id, taken_at="2026-01-02T03:04:05.5Z", start_kind="pool")
    finished = b.finished(
        *(0, actor_id),
        first_output_at="2026-01-02T03:04:07Z",
        memory_bytes=50_000_000,
        network_bytes=700,
    )
    after = await append(log, b.assigned(0, actor_id), started, finished)
    shown = result_of(await client.get(path, headers=after))
    assert shown["timeline"] | {"accepted": None} == {
        "accepted": None,
        "taken": "2026-01-02T03:04:05.500000Z",
        "started": "2026-01-02T03:04:06.000000Z",
        "first_output": "2026-01-02T03:04:07.000000Z",
        "ended": "2026-01-02T03:04:08.000000Z",
        "recorded": "2026-01-02T03:04:05.000000Z",
    }
    assert (shown["memory"], shown["network"], shown["start_kind"]) == (50_000_000, 700, "pool")


async def test_orders_need_the_log_alone(nats_server: NatsServer) -> None:
    with scratch_folder() as folder:
        api = Api(folder, nats_server.url, "postgresql://abaco@127.0.0.1:9/none")
        with running(api):
            async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
                actor_id = await actor(client, "alone", 2)
                path = f"/actors/{actor_id}/executions/{actor_id}_exc_0"
                connection = Connection(nats_server.url, name="test")
                await connection.open()
                await append(JetStreamEventLog(connection), b.abandoned(0, actor_id))
                await connection.close()
                result_of(await client.post(f"{path}/retry"))
                result_of(await client.delete(path))
                result_of(await client.delete(f"/actors/{actor_id}/messages"))
                error_of(await client.delete(path.replace("exc_0", "exc_2")), 404)
                nats_server.kill()
                for method, order in (("DELETE", path), ("POST", f"{path}/retry")):
                    assert "NATS" in error_of(await client.request(method, order), 503)["msg"]
