"""Answers about the past from indexes are those of a fold of the whole history."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import builders as b
import sound_histories
from abaco_api.as_of.full_fold import FullFold
from abaco_api.as_of.indexed_answers import IndexedAnswers
from abaco_api.as_of.past_read_models import Answers
from abaco_api.domain import views
from abaco_api.explain.execution_position import HostCapacity
from abaco_api.explain.why import ExecutionHistory
from abaco_api.explain.why_selection import why_events
from abaco_api.queries.past_rows import SQL, PastRows
from abaco_api.queries.postgres_pool import PostgresPool
from abaco_projector.adapters.read_model_store import ReadModelStore, open_store
from abaco_projector.adapters.schema_migrations import migrate, migrations
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unknown
from fakes import InMemoryEventLog

ACTORS = ("foo_0", "bar_0")
TENANT = "default"
SECONDS = 60.0
EVENTS, STEP = 100, 3
"""Histories are so long; each is asked about every third event, and all together about all."""


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[ReadModelStore]:
    async with open_store(postgres_dsn) as opened:
        await migrate(opened)
        yield opened


@pytest.fixture
async def rows(postgres_dsn: str) -> AsyncIterator[PastRows]:
    pool = PostgresPool(postgres_dsn, SECONDS)
    yield PastRows(pool, TENANT, SECONDS)
    pool.close()


async def project(store: ReadModelStore, history: list[Recorded], size: int) -> InMemoryEventLog:
    """Fold a history into the tables, in batches; and the log that holds it."""
    await store.session.run_sql(
        "TRUNCATE actors, executions, workers, subscriptions, events, projection_checkpoints"
    )
    after = await store.checkpoint("events")
    for begin in range(0, len(history), size):
        batch = history[begin : begin + size]
        await store.apply_events(batch, after=after)
        after = batch[-1].sequence
    log = InMemoryEventLog()
    log.events = history
    return log


Question = Callable[[Answers], Awaitable[Any]]


def questions(history: list[Recorded]) -> dict[str, Question]:
    """All that is asked, with answers as a client sees them."""
    asked: dict[str, Question] = {}

    async def actors(way: Answers) -> Any:
        found = await way.actors(10, 0, None)
        rest = await way.actors(10, 0, found[0]) if found else []
        return [(views.actor(row), row["found"]) for row in (*found, *rest)]

    asked["actors"] = actors
    for actor_id in ACTORS:
        asked |= of_actor(actor_id, history)
    return asked


def of_actor(actor_id: str, history: list[Recorded]) -> dict[str, Question]:
    async def actor(way: Answers) -> Any:
        row = await way.actor(actor_id)
        return views.actor(row), views.state(row)

    async def subscriptions(way: Answers) -> Any:
        return list(map(views.subscription, await way.subscriptions(actor_id)))

    async def waiting(way: Answers) -> Any:
        return await way.waiting(actor_id)

    async def executions(way: Answers) -> Any:
        pages = [await way.executions(actor_id, limit, offset) for limit, offset in PAGES]
        return list(map(views.executions, pages))

    async def workers(way: Answers) -> Any:
        return list(map(views.worker, await way.workers(actor_id)))

    asked: dict[str, Question] = {
        f"{actor_id} itself": actor,
        f"{actor_id} subscriptions": subscriptions,
        f"{actor_id} waiting": waiting,
        f"{actor_id} executions": executions,
        f"{actor_id} workers": workers,
    }
    events = [r.event for r in history if getattr(r.event, "actor_id", None) == actor_id]
    for worker_id in sorted({getattr(event, "worker_id", None) or "" for event in events} - {""}):
        asked[worker_id] = of_worker(actor_id, worker_id)
    for ordinal in sorted({getattr(event, "ordinal", -1) for event in events} - {-1}):
        asked[f"{actor_id} execution {ordinal}"] = of_execution(actor_id, ordinal)
    return asked


PAGES = ((1000, 0), (3, 2), (1000, 5))


def of_worker(actor_id: str, worker_id: str) -> Question:
    async def worker(way: Answers) -> Any:
        return views.worker(await way.worker(actor_id, worker_id))

    return worker


def of_execution(actor_id: str, ordinal: int) -> Question:
    async def execution(way: Answers) -> Any:
        return views.execution(await way.execution(actor_id, ordinal))

    return execution


async def answer(question: Question, way: Answers) -> Any:
    try:
        return await question(way)
    except Unknown as error:
        return str(error)


@pytest.mark.parametrize("seed", range(STEP))
async def test_at_any_event_indexes_answer_as_the_whole_history(
    store: ReadModelStore, rows: PastRows, seed: int
) -> None:
    history = sound_histories.history(seed, EVENTS, ACTORS, end=seed != 1)
    log = await project(store, history, size=7)
    asked = questions(history)
    for sequence in range(seed, len(history) + 1, STEP):
        fold = FullFold(log, TENANT, sequence)
        indexed = IndexedAnswers(rows, TENANT, sequence)
        for name, question in asked.items():
            expected = await answer(question, fold)
            assert await answer(question, indexed) == expected, (seed, sequence, name)


async def test_selected_events_explain_as_the_whole_history(
    store: ReadModelStore, rows: PastRows
) -> None:
    history = sound_histories.history(STEP, EVENTS, ACTORS, end=True)
    await project(store, history, size=7)
    nowhere = HostCapacity({}, {})
    for sequence in range(STEP, len(history) + 1, 2 * STEP):
        before = history[:sequence]
        received = [r.event for r in before if isinstance(r.event, ev.MessageReceived)]
        for message in received:
            actor_id, ordinal = message.actor_id, message.ordinal
            whole = ExecutionHistory(TENANT, actor_id, ordinal)
            for recorded in before:
                if getattr(recorded.event, "actor_id", None) == actor_id:
                    whole.take(recorded)
            selected = ExecutionHistory(TENANT, actor_id, ordinal)
            live = await rows.live_workers(actor_id, sequence)
            for recorded in await why_events(rows, sequence, actor_id, ordinal, live):
                selected.take(recorded)
            expected = whole.answer(nowhere, [], whole.backlog)
            found = selected.answer(nowhere, [], whole.backlog, live)
            assert found == expected, (sequence, actor_id, ordinal)
            assert selected.event_ids == whole.event_ids
    for message in received:
        whole = ExecutionHistory(TENANT, message.actor_id, message.ordinal)
        for recorded in history:
            whole.take(recorded)
        row = await rows.backlog(message.actor_id, message.ordinal)
        assert row["ahead"] == whole.backlog.ahead
    assert [r.event for r in await rows.host_events()] == [b.joined()]


async def test_the_indexes_made_for_it_find_what_is_named(store: ReadModelStore) -> None:
    await project(store, sound_histories.history(STEP, EVENTS, ACTORS, end=True), size=50)
    await store.session.run_sql("ANALYZE events; SET enable_seqscan = off")
    names = [f"{actor_id}_exc_{ordinal}" for actor_id in ACTORS for ordinal in range(3)]
    assert "events_by_name" in await plan(store, "events_named", names, EVENTS)
    workers = [f"{actor_id}_wkr_0" for actor_id in ACTORS]
    assert "assignments_of_worker" in await plan(store, "assignments", workers, EVENTS, 2)


async def plan(store: ReadModelStore, query: str, *arguments: Any) -> str:
    lines = await store.session.fetch_sql(f"EXPLAIN {SQL[query]}", TENANT, *arguments)
    return "\n".join(line[0] for line in lines)


SEQUENCES = """
SELECT json_agg(row ORDER BY key)::text
FROM (
    SELECT worker_id AS key, requested_sequence AS begun, ended_sequence AS ended FROM workers
    UNION ALL
    SELECT execution_id, started_sequence, ended_sequence FROM executions
) AS row
"""


async def test_the_migration_fills_in_what_the_fold_says(store: ReadModelStore) -> None:
    await project(store, sound_histories.history(7, 3 * EVENTS, ACTORS, end=True), size=50)
    [migration] = [m for m in migrations() if m.name == "past"]
    updates = [s for s in re.split(r";\n", migration.sql) if "UPDATE " in s]
    assert len(updates) == 4
    folded = await store.session.fetch_sql(SEQUENCES)
    await store.session.run_sql(
        "UPDATE workers SET requested_sequence = 0, ended_sequence = 0;"
        "UPDATE executions SET started_sequence = 0, ended_sequence = 0"
    )
    for update in updates:
        await store.session.run_sql(update)
    assert await store.session.fetch_sql(SEQUENCES) == folded
