"""The store on a real Postgres: what it writes is what the fold says."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import builders as b
import projections as p
from abaco_projector.adapters.read_model_store import ReadModelStore, open_store
from abaco_projector.adapters.schema_migrations import Migration, migrate, migrations
from abaco_projector.adapters.sql_queries import QUERIES
from abaco_projector.domain import write_buffer
from abaco_projector.domain.sanitise import sanitise
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Malformed, Refused, Unavailable, Undecodable
from abaco_proto.fold import States
from abaco_proto.output import Output, RecordedOutput
from abaco_proto.state_keys import state_keys
from deadlines import LIMIT_SECONDS


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[ReadModelStore]:
    async with open_store(postgres_dsn) as opened:
        await migrate(opened)
        await begin(opened)
        yield opened


@pytest.fixture
async def sql(postgres_dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


async def begin(store: ReadModelStore) -> None:
    await store.checkpoint("events")
    await store.checkpoint("output")


async def forget(store: ReadModelStore) -> None:
    tables = "actors, executions, workers, subscriptions, logs, events, projection_checkpoints"
    await store.session.run_sql(f"TRUNCATE {tables}")
    await begin(store)


async def states(store: ReadModelStore, history: list[Recorded]) -> States:
    return p.plain(await store.load(state_keys(history)))


async def apply(store: ReadModelStore, *batches: list[Recorded]) -> None:
    for batch in batches:
        await store.apply_events(batch, after=batch[0].sequence - 1)


HISTORY = p.recorded(
    [
        b.registered(description="says hello", default_environment={"A": "\x00"}),
        b.requested(),
        b.ready(),
        b.received(0),
        b.assigned(0),
        b.started(0),
        b.finished(0),
        ev.ActorStateSet(actor_id="foo_0", state={"a": ["\x00", 1.5]}, version=1),
        ev.ActorSubscribed(actor_id="foo_0", subscription_id="sub_0", event_pattern="bar_*.>"),
        b.received(1),
        b.received(2),
        ev.InboxPurged(actor_id="foo_0", up_to_ordinal=1),
    ]
)

CLEAN = p.plain(p.reference([sanitise(recorded) for recorded in HISTORY]))

# -- rows ----------------------------------------------------------------------------------------


async def test_columns_hold_what_their_names_say(store: ReadModelStore, sql: Any) -> None:
    await apply(store, HISTORY)
    actor = dict(await sql.fetchrow("SELECT * FROM actors"))
    assert (actor["tenant"], actor["actor_id"], actor["name"]) == ("default", "foo_0", "foo")
    assert json.loads(actor["definition"])["default_environment"] == {"A": "\ufffd"}
    assert json.loads(actor["state"]) == {"a": ["\x00", 1.5]}
    assert (actor["status"], actor["state_version"], actor["revision"]) == ("READY", 1, 1)
    assert (actor["sequence"], actor["definition_sequence"]) == (9, 1)
    assert actor["registered_at"] == HISTORY[0].time
    assert (actor["total_executions"], actor["total_ended"]) == (3, 2)
    assert (actor["total_cpu_ns"], actor["total_runtime_ms"]) == (9_000_000, 2004.5)

    done, purged, waiting = await sql.fetch("SELECT * FROM executions ORDER BY ordinal")
    assert (done["execution_id"], done["status"], done["attempt"]) == ("foo_0_exc_0", "COMPLETE", 1)
    assert json.loads(done["final_state"])["exit_code"] == 0
    assert (done["worker_id"], done["start_kind"]) == ("foo_0_wkr_0", "cold")
    assert done["message_sequence"] == 4
    assert done["finished_at"] > done["started_at"] > b.T0
    assert (purged["status"], purged["finished_at"]) == ("PURGED", HISTORY[-1].time)
    assert (waiting["status"], waiting["finished_at"]) == ("SUBMITTED", None)

    worker = await sql.fetchrow("SELECT * FROM workers")
    assert (worker["worker_id"], worker["status"], worker["host_id"]) == (
        "foo_0_wkr_0",
        "READY",
        "h1",
    )
    subscription = await sql.fetchrow("SELECT * FROM subscriptions")
    assert (subscription["event_pattern"], subscription["subscribed_at"]) == (
        "bar_*.>",
        HISTORY[8].time,
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=p.histories(), data=st.data())
async def test_rows_are_the_fold_of_proto(
    store: ReadModelStore, history: list[Recorded], data: st.DataObject
) -> None:
    await forget(store)
    rest = history
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        await apply(store, rest[:size])
        rest = rest[size:]
    expected = p.reference([sanitise(recorded) for recorded in history])
    assert await states(store, history) == p.plain(expected)
    rows = await store.session.fetch_sql("SELECT actor_id, subscription_id FROM subscriptions")
    assert {tuple(row) for row in rows} == {
        (a.actor_id, name) for a in expected.actors.values() for name in a.subscriptions
    }


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=p.histories(), data=st.data(), most=st.integers(0, 3))
async def test_rows_that_were_put_off_are_the_same(
    store: ReadModelStore, history: list[Recorded], data: st.DataObject, most: int
) -> None:
    await forget(store)
    rest = history
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_buffer, "MAX_STATES", most)
        async with store.buffering_writes():
            while rest:
                size = data.draw(st.integers(1, len(rest)))
                await apply(store, rest[:size])
                rest = rest[size:]
    expected = p.reference([sanitise(recorded) for recorded in history])
    assert await states(store, history) == p.plain(expected)


async def statuses(sql: Any) -> list[str]:
    return [row["status"] for row in await sql.fetch("SELECT * FROM executions ORDER BY ordinal")]


async def test_a_purge_ends_earlier_rows_up_to_its_ordinal(store: ReadModelStore, sql: Any) -> None:
    history = p.recorded(
        [
            b.registered(),
            *(b.received(n) for n in range(4)),
            b.assigned(0),
            ev.InboxPurged(actor_id="foo_0", up_to_ordinal=2),
            b.started(0),
        ]
    )
    await apply(store, history[:5], history[5:])
    assert await statuses(sql) == ["RUNNING", "PURGED", "PURGED", "SUBMITTED"]
    assert await sql.fetchval("SELECT total_ended FROM actors") == 2


async def test_a_purge_spares_what_came_after_it_in_the_same_batch(
    store: ReadModelStore, sql: Any
) -> None:
    purge = ev.InboxPurged(actor_id="foo_0", up_to_ordinal=9)
    history = p.recorded([b.registered(), b.received(0), purge, b.received(1)])
    await apply(store, history[:2], history[2:])
    assert await statuses(sql) == ["PURGED", "SUBMITTED"]
    assert await sql.fetchval("SELECT total_ended FROM actors") == 1


@pytest.mark.parametrize("table", ["actors", "executions", "workers", "subscriptions"])
async def test_every_column_is_written_again(store: ReadModelStore, sql: Any, table: str) -> None:
    """All but the key, and the totals, which have a statement of their own."""
    key = {"tenant", "actor_id", "ordinal", "worker_id", "subscription_id"}
    if table == "executions":
        key.remove("worker_id")
    if table == "workers":
        key.remove("actor_id")
    query = "SELECT column_name FROM information_schema.columns WHERE table_name = $1"
    columns = {row[0] for row in await sql.fetch(query, table)}
    written = set(re.findall(r"(\w+) = excluded\.\1", QUERIES[f"write_{table}"]))
    assert written == {name for name in columns - key if not name.startswith("total_")}


async def test_a_batch_twice_changes_nothing(store: ReadModelStore, sql: Any) -> None:
    await apply(store, HISTORY)
    before = [await sql.fetch(f"SELECT * FROM {t}") for t in ("actors", "executions", "workers")]
    await store.apply_events(HISTORY, after=0)
    await store.apply_events(HISTORY[3:8], after=0)
    after = [await sql.fetch(f"SELECT * FROM {t}") for t in ("actors", "executions", "workers")]
    assert before == after
    assert await store.checkpoint("events") == len(HISTORY)


async def test_a_batch_that_overlaps_the_checkpoint_adds_only_the_rest(
    store: ReadModelStore,
) -> None:
    await apply(store, HISTORY[:6])
    await store.apply_events(HISTORY[2:], after=0)
    assert await states(store, HISTORY) == CLEAN


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=p.histories(40), data=st.data())
async def test_whatever_is_told_again_no_total_is_off(
    store: ReadModelStore, history: list[Recorded], data: st.DataObject
) -> None:
    """Every event at least twice, in batches that begin anywhere before the checkpoint."""
    await forget(store)
    known = 0
    while known < len(history):
        end = data.draw(st.integers(known + 1, len(history)))
        for start in (known, data.draw(st.integers(0, known)), 0):
            await store.apply_events(history[start:end], after=start)
        known = end
    expected = p.reference([sanitise(recorded) for recorded in history])
    assert await states(store, history) == p.plain(expected)


async def test_two_projectors_at_once_are_as_good_as_one(
    store: ReadModelStore, postgres_dsn: str
) -> None:
    async with open_store(postgres_dsn) as other:
        for start in range(0, len(HISTORY), 3):
            part = HISTORY[start : start + 3]
            await asyncio.gather(*(s.apply_events(part, after=0) for s in (store, other)))
    assert await states(store, HISTORY) == CLEAN


async def test_a_checkpoint_that_went_back_is_noticed(store: ReadModelStore) -> None:
    with pytest.raises(Unavailable, match="went back from 4 to 0"):
        await store.apply_events(HISTORY[4:], after=4)


async def test_a_listener_hears_the_sequence(store: ReadModelStore, sql: Any) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await sql.add_listener("abaco_projection", lambda *words: heard.put_nowait(words[3]))
    await apply(store, HISTORY)
    assert await asyncio.wait_for(heard.get(), LIMIT_SECONDS) == "12"


async def test_what_is_not_understood_is_counted(store: ReadModelStore, sql: Any) -> None:
    odd = [b.registered(), ev.Unrecognized(raw=b"", reason="?"), b.joined()]
    await apply(store, p.recorded([*odd]))
    row = await sql.fetchrow("SELECT * FROM projection_checkpoints WHERE name = 'events'")
    assert (row["sequence"], row["skipped"]) == (3, 1)


async def test_data_the_database_refuses_leaves_the_store_usable(store: ReadModelStore) -> None:
    known, message, refused = p.recorded([b.registered(), b.received(0), b.assigned(attempt=2**40)])
    await apply(store, [known])
    with pytest.raises(Undecodable):
        await apply(store, [message, refused])
    await apply(store, [message])
    await store.skip_event(refused)
    assert await store.checkpoint("events") == 3


# -- output --------------------------------------------------------------------------------------


def output(sequence: int, offset: int, data: bytes) -> RecordedOutput:
    whose = {"tenant": "default", "actor_id": "foo_0", "execution_id": "foo_0_exc_0"}
    return RecordedOutput(
        sequence=sequence, output=Output(**whose, attempt=1, offset=offset, data=data)
    )


async def test_output_is_stored_once_whatever_its_borders(store: ReadModelStore, sql: Any) -> None:
    await store.apply_output([output(1, 0, b"ab\x00"), output(2, 3, b"\xffd")], after=0)
    await store.apply_output([output(3, 0, b"ab"), output(4, 2, b"\x00\xffdef")], after=2)
    await store.apply_output([output(4, 2, b"\x00\xffdef"), output(5, 90, b"z")], after=2)
    rows = await sql.fetch("SELECT output_offset, data FROM logs ORDER BY output_offset")
    assert [tuple(row) for row in rows] == [
        (0, b"ab\x00"),
        (3, b"\xffd"),
        (5, b"ef"),
        (90, b"z"),
    ]
    assert await store.checkpoint("output") == 5
    assert await store.checkpoint("events") == 0


# -- schema --------------------------------------------------------------------------------------


async def test_a_second_migration_is_applied_once(store: ReadModelStore, sql: Any) -> None:
    more = [*migrations(), Migration(9, "more", "CREATE TABLE more (a int)")]
    await migrate(store, more)
    await migrate(store, more)
    applied = await sql.fetch("SELECT number, name FROM schema_migrations ORDER BY number")
    assert [tuple(row) for row in applied][-1] == (9, "more")


async def test_a_later_schema_is_refused(store: ReadModelStore, sql: Any) -> None:
    await sql.execute("INSERT INTO schema_migrations VALUES (9999, 'future')")
    with pytest.raises(Refused, match="schema 9999"):
        await migrate(store)


async def test_a_broken_migration_leaves_nothing(store: ReadModelStore, sql: Any) -> None:
    broken = Migration(9, "broken", "CREATE TABLE half (a int); SELECT nonsense")
    with pytest.raises(Unavailable):
        await migrate(store, [*migrations(), broken])
    assert await sql.fetchval("SELECT to_regclass('half')") is None


async def test_processes_that_migrate_at_once_take_turns(postgres_dsn: str) -> None:
    async def one() -> None:
        async with open_store(postgres_dsn) as store:
            await migrate(store)

    await asyncio.gather(*(one() for _ in range(4)))


async def test_a_database_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        async with open_store("postgresql://abaco@127.0.0.1:9/abaco"):
            pass


async def test_an_address_that_is_none_is_malformed() -> None:
    with pytest.raises(Malformed, match="ABACO_POSTGRES_DSN"):
        async with open_store("postgresql://abaco@127.0.0.1:port/abaco"):
            pass
