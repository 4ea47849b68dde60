"""Rebuild and replay on a real log and a real database, with everybody at work meanwhile."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import asyncpg
import pytest

import builders as b
import projections as p
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_projector.adapters.read_model_store import open_store
from abaco_projector.audit.rebuild import RebuildResult, rebuild
from abaco_projector.audit.replay_schema import replay
from abaco_projector.audit.table_comparison import TABLE_KEYS
from abaco_projector.audit.verify import verify
from abaco_projector.domain.history_difference import Difference
from abaco_projector.domain.sanitise import sanitise
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto.envelope import format_time
from abaco_proto.errors import Malformed, Refused
from abaco_proto.state_keys import state_keys
from deadlines import LIMIT_SECONDS
from projector_stage import (
    DEADLINE_SECONDS,
    actor_history,
    append,
    assert_rows_are_the_fold_of,
    history_of,
    projector,
    reached,
    until,
    value,
)

LIFE = [b.joined(), *actor_history("foo_0", 10), *actor_history("bar_0", 10)]
COUNT = len(LIFE)
SCHEMAS = (
    "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace"
    " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
)

# -- given ---------------------------------------------------------------------------------------


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    opened = Connection(nats_url, name="test", timeout=5)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def config(nats_url: str, postgres_dsn: str) -> ProjectorSettings:
    return ProjectorSettings(nats_url=nats_url, postgres_dsn=postgres_dsn)


@pytest.fixture
async def dsn(connection: Connection, config: ProjectorSettings) -> str:
    """Read models of a life, by a projector that has stopped."""
    await append(connection, LIFE)
    async with projector(config):
        await reached(config.postgres_dsn, COUNT)
    return config.postgres_dsn


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], object]]:
    yield lambda _: None


async def rebuilt(connection: Connection, dsn: str, *, force: bool = False) -> RebuildResult:
    return await rebuild(JetStreamEventLog(connection), dsn, silent, force=force)


async def assert_clean(connection: Connection, dsn: str, sequence: int) -> None:
    head = await verify(JetStreamEventLog(connection), dsn, silent)
    assert head.sequence == sequence
    assert await value(dsn, SCHEMAS) == "public"


# -- rebuild -------------------------------------------------------------------------------------


async def test_nothing_changes_when_nothing_was_wrong(connection: Connection, dsn: str) -> None:
    oid = "SELECT '{}'::regclass::oid"
    before = [await value(dsn, oid.format(table)) for table in TABLE_KEYS]
    indexes = "SELECT string_agg(indexdef, '; ' ORDER BY indexdef) FROM pg_indexes"
    indexes += " WHERE schemaname = 'public'"
    definitions = await value(dsn, indexes)
    done = await rebuilt(connection, dsn)
    assert (done.sequence, done.differences) == (COUNT, [])
    after = [await value(dsn, oid.format(table)) for table in TABLE_KEYS]
    assert [one for one in before if one in after] == before[:1], "the copy alone stays"
    assert await value(dsn, indexes) == definitions
    await assert_clean(connection, dsn, COUNT)


async def test_what_was_wrong_is_told_and_put_right(connection: Connection, dsn: str) -> None:
    await value(dsn, "UPDATE executions SET status = 'ERROR' WHERE actor_id = 'foo_0'")
    await value(dsn, "DELETE FROM workers")
    done = await rebuilt(connection, dsn)
    assert [(one.table, one.count) for one in done.differences] == [
        ("workers", 2),
        ("executions", 10),
    ]
    await assert_clean(connection, dsn, COUNT)


async def test_a_copy_that_says_something_else_is_kept(connection: Connection, dsn: str) -> None:
    await value(dsn, "UPDATE events SET hops = 1 WHERE seq = 5")
    with pytest.raises(Difference, match="table events: row 5, column hops"):
        await rebuilt(connection, dsn)
    assert await value(dsn, "SELECT hops FROM events WHERE seq = 5") == 1
    assert await value(dsn, SCHEMAS) == "public"
    await rebuilt(connection, dsn, force=True)
    await assert_clean(connection, dsn, COUNT)


async def test_an_empty_database_is_filled(
    connection: Connection, config: ProjectorSettings
) -> None:
    await append(connection, LIFE)
    assert (await rebuilt(connection, config.postgres_dsn)).sequence == 0
    async with projector(config):
        await reached(config.postgres_dsn, COUNT)
    await assert_clean(connection, config.postgres_dsn, COUNT)


async def test_under_load_queries_answer_and_nothing_is_lost(
    connection: Connection, config: ProjectorSettings, dsn: str
) -> None:
    """Messages arrive, the projector works, queries are asked on connections with cached plans."""
    more = [event for n in range(30) for event in actor_history(f"baz_{n}", 6)]
    async with projector(config), asking(dsn) as answers:
        writing = asyncio.ensure_future(append(connection, more))
        sequences = [COUNT]
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not writing.done() or sequences[-1] == COUNT:
                sequences.append((await rebuilt(connection, dsn)).sequence)
        await writing
        await reached(dsn, COUNT + len(more))
    assert await value(dsn, "SELECT generation FROM projection_checkpoints WHERE name = 'events'")
    assert sequences == sorted(sequences)
    assert answers == sorted(answers)
    assert len(answers) > 100
    await assert_rows_are_the_fold_of(dsn, await history_of(connection))
    await assert_clean(connection, dsn, COUNT + len(more))


@asynccontextmanager
async def asking(dsn: str) -> AsyncIterator[list[tuple[int, int]]]:
    """Queries as the api asks them, without end: how many events and executions there are."""
    answers: list[tuple[int, int]] = []

    async def ask(client: "asyncpg.Connection[asyncpg.Record]") -> None:
        while True:
            events = await client.fetchval("SELECT max(seq) FROM events")
            query = "SELECT sum(total_executions)::bigint FROM actors WHERE tenant = $1"
            answers.append((events, await client.fetchval(query, "default")))

    client = await asyncpg.connect(dsn)
    work = asyncio.ensure_future(ask(client))
    try:
        yield answers
    finally:
        work.cancel()
        await asyncio.wait({work})
        client.terminate()
        assert work.cancelled(), work.exception()


async def test_it_waits_for_a_long_query_and_holds_nobody_up(
    connection: Connection, dsn: str
) -> None:
    auditor = await asyncpg.connect(dsn)
    await auditor.execute("BEGIN; SELECT count(*) FROM executions")
    work = asyncio.ensure_future(rebuilt(connection, dsn))
    waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    async def waiting() -> bool:
        return bool(await value(dsn, waits))

    await until(waiting)
    async with asyncio.timeout(
        LIMIT_SECONDS
    ):  # behind the lock that is asked for, for as long as that is
        assert await value(dsn, "SELECT count(*) FROM executions") == 20
    assert not work.done()
    await auditor.execute("COMMIT")
    assert (await work).sequence == COUNT
    await auditor.close()


async def test_only_one_at_a_time(connection: Connection, dsn: str) -> None:
    done = await asyncio.gather(
        rebuilt(connection, dsn), rebuilt(connection, dsn), return_exceptions=True
    )
    refused = [one for one in done if isinstance(one, Refused)]
    assert [str(one) for one in refused] == ["schema abaco_next: another command is at work on it"]


# -- killed half way -----------------------------------------------------------------------------


async def test_killed_half_way_it_can_be_run_again(
    connection: Connection, config: ProjectorSettings, dsn: str
) -> None:
    more = [event for n in range(30) for event in actor_history(f"baz_{n}", 6)]
    await append(connection, more)
    count = COUNT + len(more)
    async with projector(config):
        await reached(dsn, count)
    for table in ("actors", "executions"):
        async with held(dsn, table):
            await killed_in_the_middle(config, dsn)
        assert await value(dsn, "SELECT count(*) FROM events") == count
    assert "abaco_next" in await value(dsn, SCHEMAS)
    assert (await rebuilt(connection, dsn)).differences == []
    await assert_clean(connection, dsn, count)


@asynccontextmanager
async def held(dsn: str, table: str) -> AsyncIterator[None]:
    """While this table is held the switch waits."""
    client = await asyncpg.connect(dsn)
    await client.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE")
    try:
        yield
    finally:
        await client.close()


async def killed_in_the_middle(config: ProjectorSettings, dsn: str) -> None:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ABACO_")},
        "ABACO_NATS_URL": config.nats_url,
        "ABACO_POSTGRES_DSN": dsn,
    }
    command = [sys.executable, "-m", "abaco_local", "rebuild"]
    waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    async def waiting() -> bool:
        return bool(await value(dsn, waits))

    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as child:
        await until(waiting)
        child.send_signal(signal.SIGKILL)
    gone = "SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'"

    async def over() -> bool:
        return bool(await value(dsn, gone))

    await until(over)


# -- replay --------------------------------------------------------------------------------------


async def test_the_past_is_a_schema(connection: Connection, dsn: str) -> None:
    log = JetStreamEventLog(connection)
    history = [sanitise(recorded) for recorded in await history_of(connection)]
    for moment in (0, 1, 17, COUNT):
        assert await replay(log, dsn, moment, "past", silent, force=True) == moment
        part = history[:moment]
        async with open_store(dsn, schema="past") as store:
            found = p.plain(await store.load(state_keys(history)))
        assert found == p.plain(p.reference(part))
        assert await value(dsn, "SELECT count(*) FROM past.events") == moment
    assert await value(dsn, "SELECT to_regclass('past.logs')") is None
    await verify(log, dsn, silent)


async def test_a_time_is_its_last_event(connection: Connection, dsn: str) -> None:
    log = JetStreamEventLog(connection)
    await value(dsn, "UPDATE events SET time = time + seq * interval '1 s'")
    at = b.T0 + timedelta(seconds=17.5)
    assert await replay(log, dsn, at, "past", silent) == 17, format_time(at)
    early = b.T0 - timedelta(days=1)
    assert await replay(log, dsn, early, "past", silent, force=True) == 0


@pytest.mark.parametrize(
    ("schema", "error", "words"),
    [
        ("public", Malformed, "holds the live tables"),
        ("pg_temp", Malformed, "reserved"),
        ("abaco_next", Malformed, "reserved"),
        ("theirs", Refused, "was not made by abaco"),
    ],
)
async def test_nothing_of_anybody_is_replaced(
    connection: Connection, dsn: str, schema: str, error: type[Exception], words: str
) -> None:
    await value(dsn, "CREATE SCHEMA theirs")
    with pytest.raises(error, match=words):
        await replay(JetStreamEventLog(connection), dsn, 1, schema, silent, force=True)


async def test_what_is_there_is_replaced_on_demand_only(connection: Connection, dsn: str) -> None:
    log = JetStreamEventLog(connection)
    await replay(log, dsn, 1, "past", silent)
    with pytest.raises(Refused, match="--force"):
        await replay(log, dsn, 2, "past", silent)
    with pytest.raises(Refused, match="the log ends at event"):
        await replay(log, dsn, 10_000, "future", silent)
    assert await value(dsn, SCHEMAS) == "past public"
