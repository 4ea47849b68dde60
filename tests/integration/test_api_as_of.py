"""Time travel: every moment of a recorded history answers what it answered live."""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_jetstream.ports import EventLog
from abaco_proto import events as ev
from abaco_proto.envelope import draft, format_time
from api_stage import Api, becomes_ready, error_of, eventually, result_of, running, whole_stage
from deadlines import LIMIT_SECONDS
from servers import PostgresServer

EVENTS = 200
ACTORS = ("foo_0", "bar_0")
AT_ONCE = 16


@pytest.fixture(scope="module")
def api(shared_postgres: PostgresServer) -> Iterator[Api]:
    with whole_stage(shared_postgres, "api_as_of") as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
async def client(api: Api) -> AsyncGenerator[httpx.AsyncClient, None]:
    async with httpx.AsyncClient(base_url=api.url, timeout=LIMIT_SECONDS) as client:
        await becomes_ready(client)
        yield client


@pytest.fixture
async def log(api: Api) -> AsyncGenerator[EventLog, None]:
    connection = Connection(api.nats_url, name="test", timeout=10)
    await connection.open()
    yield JetStreamEventLog(connection)
    await connection.close()


def paths(actor_id: str) -> list[str]:
    """What is asked of an actor."""
    base = f"/actors/{actor_id}"
    one = [f"/executions/{actor_id}_exc_{n}" for n in (0, 2)]
    worker = [f"/workers/{actor_id}_wkr_0"]
    lists = ["/state", "/messages", "/executions", "/workers", "/subscriptions"]
    return [base, *(base + path for path in (*lists, *one, *worker))]


Answer = tuple[int, Any]


async def answers(client: httpx.AsyncClient, wanted: list[str], **how: Any) -> dict[str, Answer]:
    """Status and result by path."""
    line = asyncio.Semaphore(AT_ONCE)

    async def ask(path: str) -> Answer:
        async with line:
            answer = await client.get(path, **how)
        return answer.status_code, answer.json()["result"]

    return dict(zip(wanted, await asyncio.gather(*map(ask, wanted)), strict=True))


def anything(chance: random.Random, actor_id: str) -> ev.Event:
    """An event of an actor, likely to fit what happened before."""
    n, worker, attempt = chance.randrange(5), chance.randrange(2), chance.choice([1, 1, 2])
    run: dict[str, Any] = {"attempt": attempt, "worker_id": f"{actor_id}_wkr_{worker}"}
    key = f"{actor_id}_sub_{n}"
    makers: list[ev.Event] = [
        b.received(n, actor_id),
        b.received(n, actor_id),
        b.assigned(n, actor_id, **run),
        b.assigned(n, actor_id, **run),
        b.started(n, actor_id, **run),
        b.finished(n, actor_id, **run, runtime_ms=chance.random() * 1000, io_bytes=2**53 + n),
        b.finished(n, actor_id, **run, exit_code=3),
        b.execution_failed(n, actor_id, **run),
        b.abandoned(n, actor_id),
        b.retry_requested(n, actor_id),
        b.halt_requested(n, actor_id),
        ev.InboxPurged(actor_id=actor_id, up_to_ordinal=n),
        b.requested(worker, actor_id),
        b.ready(worker, actor_id),
        b.failed(worker, actor_id),
        b.stop_requested(worker, actor_id),
        b.stopped(worker, actor_id),
        b.updated(actor_id, chance.choice([1, 2]), default_environment={"B": "1", "A": "é"}),
        ev.ActorStateSet(actor_id=actor_id, state=[n, 0.1, "é\0", {"a": None}], version=n),
        ev.ActorSubscribed(actor_id=actor_id, subscription_id=key, event_pattern="nobody_0.>"),
        ev.ActorUnsubscribed(actor_id=actor_id, subscription_id=key),
    ]
    return chance.choice(makers)


async def test_every_moment_answers_as_it_did_live(
    client: httpx.AsyncClient, log: EventLog
) -> None:
    chance = random.Random(2)
    history: list[ev.Event] = [b.joined(), *map(b.registered, ACTORS)]
    history += [anything(chance, chance.choice(ACTORS)) for _ in range(EVENTS - 4)]
    history.append(ev.ActorDeleted(actor_id=ACTORS[0]))
    recorded: dict[int, dict[str, Answer]] = {}
    known: dict[str, Answer] = {}
    for n, event in enumerate(history):
        time = b.T0 + timedelta(seconds=n, microseconds=n)
        drafted = draft(event, tenant="default", time=time, causation_id=f"c-{n}", position=n)
        drafted = replace(drafted, id=f"event.{n}")  # the same may happen again
        sequence = await log.append(drafted)
        touched = [p for a in ACTORS if getattr(event, "actor_id", a) == a for p in paths(a)]
        after = {"Abaco-After": str(sequence)}
        known |= await answers(client, ["/actors", *touched], headers=after)
        # What it is not about is as before; of that, every twentieth moment is enough.
        wanted = known if sequence % 20 == 0 else ["/actors", *touched]
        recorded[sequence] = {path: known[path] for path in wanted}
    assert len(recorded) == EVENTS
    assert {status for status, _ in known.values()} == {200, 404}
    for sequence, then in recorded.items():
        now = await answers(client, list(then), params={"as_of": str(sequence)})
        for path, (status, result) in then.items():
            assert (status, result) == now[path], (sequence, path)
    moment = format_time(b.T0 + timedelta(seconds=150, microseconds=151))
    then = recorded[151]
    assert await answers(client, list(then), params={"as_of": moment}) == then


async def test_what_a_moment_means(client: httpx.AsyncClient, log: EventLog) -> None:
    await client.post("/actors", data={"image": "a/b", "name": "late"})
    sent = await client.post("/actors/late_0/state", json={"state": 1})
    last = int(sent.headers["Abaco-Sequence"])

    async def ask(as_of: object, path: str = "/actors/late_0/state") -> httpx.Response:
        return await client.get(path, params={"as_of": str(as_of)})

    assert result_of(await ask(last)) == {"state": 1, "version": 1}
    before = await ask(last - 1)
    assert result_of(before) == {"state": "", "version": 0}
    assert before.headers["Abaco-As-Of"] == str(last - 1)
    missing = error_of(await ask(last - 2), 404)["msg"]
    assert missing == f"actor_id: 'late_0' was not registered yet at event {last - 2}, or never was"
    assert result_of(await ask(0, "/actors")) == []
    assert "log ends" in error_of(await ask(last + 1), 400)["msg"]
    times = {e["seq"]: e["time"] for e in result_of(await client.get("/actors/late_0/events"))}
    assert (await ask(times[last])).headers["Abaco-As-Of"] == str(last)
    assert (await ask(times[last - 1])).headers["Abaco-As-Of"] == str(last - 1)
    assert (await ask("2999-01-01T00:00:00+02:00")).headers["Abaco-As-Of"] == str(last)
    error_of(await ask("1999-01-01 00:00:00Z"), 404)
    for wrong in ("", "yesterday", "-1", "1.5", "2026-01-02T03:04:05", "9" * 30):
        assert error_of(await ask(wrong), 400)["msg"].startswith("as_of")


async def test_a_later_time_never_means_less_of_the_log(
    client: httpx.AsyncClient, log: EventLog
) -> None:
    """Clocks differ: of two events the later one may have the earlier time."""
    at = b.T0 + timedelta(days=1000)
    sequences = [
        await log.append(b.envelope_of(b.joined(f"h-{n}"), at=at + timedelta(seconds=s)))
        for n, s in enumerate((0, 10, 5, 20))
    ]

    async def shown() -> bool:
        answer = await client.get("/actors", headers={"Abaco-After": str(sequences[-1])})
        return answer.status_code == 200

    await eventually(shown)
    found = []
    for seconds in (0, 5, 10, 20):
        moment = format_time(at + timedelta(seconds=seconds))
        answer = await client.get("/actors", params={"as_of": moment})
        found.append(int(answer.headers["Abaco-As-Of"]))
    assert found == [sequences[0], sequences[2], sequences[2], sequences[3]]


async def test_sequences_need_no_postgres(api: Api, tmp_path: Path) -> None:
    lonely = Api(tmp_path, api.nats_url, "postgresql://abaco@127.0.0.1:9/none")
    with running(lonely):
        async with httpx.AsyncClient(base_url=lonely.url, timeout=LIMIT_SECONDS) as client:

            async def answered() -> bool:
                return (await client.get("/actors?as_of=1")).status_code == 200

            await eventually(answered)
            error_of(await client.get("/actors?as_of=2026-01-01T00:00:00Z"), 503)
