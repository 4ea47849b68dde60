"""Verify on a real log and a real database: clean, and each kind of tampering by its name."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_jetstream.stream_setup import stream_config
from abaco_projector.audit import output_audit
from abaco_projector.audit.output_audit import OutputTally
from abaco_projector.audit.verify import VerifiedHead, verify
from abaco_projector.domain.history_difference import Difference
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto import events as ev
from abaco_proto import streams
from abaco_proto.envelope import Draft, draft, encode, to_headers
from abaco_proto.errors import Refused
from abaco_proto.names import event_subject
from projector_stage import (
    DEADLINE_SECONDS,
    actor_history,
    append,
    projector,
    reached,
    until,
    value,
)

# -- given ---------------------------------------------------------------------------------------

LIFE = [b.joined(), *actor_history("foo_0", 10), *actor_history("bar_0", 10)]
COUNT = len(LIFE)
OLD = 12
"""So many events are of a version that did not record principals."""
WHO = "token:AbCd1234:anna"


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    opened = Connection(nats_url, name="test", timeout=5)
    await opened.open()
    await tamperable(opened)
    yield opened
    await opened.close()


async def tamperable(connection: Connection) -> None:
    """A log without its protection, as an intruder would make one; empty."""
    config = stream_config(streams.EVENTS)
    config.deny_delete = config.deny_purge = False
    await connection.jetstream.delete_stream(streams.EVENTS.name)
    await connection.jetstream.add_stream(config)


@pytest.fixture
async def dsn(connection: Connection, nats_url: str, postgres_dsn: str) -> str:
    """Read models of a life, by a projector that has stopped."""
    await append(connection, LIFE[:OLD])
    await append(connection, LIFE[OLD:], WHO)
    async with projector(ProjectorSettings(nats_url=nats_url, postgres_dsn=postgres_dsn)):
        await reached(postgres_dsn, COUNT)
    return postgres_dsn


async def log_anew(connection: Connection, change: Callable[[list[Draft]], None]) -> None:
    """Another log in the place of the old one."""
    drafts = [
        draft(event, tenant="default", time=b.T0, causation_id="req-1", principal=principal)
        for event, principal in zip(LIFE, [*[None] * OLD, *[WHO] * (COUNT - OLD)], strict=True)
    ]
    change(drafts)
    await tamperable(connection)
    for drafted in drafts:
        subject = event_subject(drafted.tenant, drafted.event)
        headers = to_headers(drafted)
        await connection.jetstream.publish(subject, encode(drafted.event), headers=headers)


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], object]]:
    yield lambda _: None


async def verified(
    connection: Connection, dsn: str, noted: tuple[int, str] | None = None
) -> VerifiedHead:
    return await verify(JetStreamEventLog(connection), dsn, silent, noted)


async def found(connection: Connection, dsn: str) -> str:
    """What verify names; and it leaves nothing behind."""
    with pytest.raises(Difference) as caught:
        await verified(connection, dsn)
    assert not await value(dsn, "SELECT to_regnamespace('abaco_verify') IS NOT NULL")
    line = str(caught.value)
    assert "\n" not in line
    return line


# -- clean ---------------------------------------------------------------------------------------


async def test_an_honest_history_is_clean(connection: Connection, dsn: str) -> None:
    head = await verified(connection, dsn)
    assert (head.sequence, head.unprojected) == (COUNT, 0)
    stored = await value(dsn, f"SELECT encode(hash, 'hex') FROM events WHERE seq = {COUNT}")
    assert head.hash == stored
    await append(connection, [b.registered("baz_0")])
    assert await verified(connection, dsn, (COUNT, stored)) == VerifiedHead(COUNT, stored, 1)


async def test_it_is_clean_while_the_projector_works(
    connection: Connection, dsn: str, nats_url: str
) -> None:
    async with projector(ProjectorSettings(nats_url=nats_url, postgres_dsn=dsn)):
        more = [event for n in range(20) for event in actor_history(f"baz_{n}", 4)]
        writing = asyncio.ensure_future(append(connection, more))
        heads = [COUNT]
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not writing.done() or heads[-1] == COUNT:
                heads.append((await verified(connection, dsn)).sequence)
        await writing
    assert heads == sorted(heads)


async def test_bytes_that_nobody_reads_are_in_the_chain(
    connection: Connection, dsn: str, nats_url: str
) -> None:
    prefix, publish = "abaco.event.default.foo_0", connection.jetstream.publish
    await publish(f"{prefix}.message.received", b"\xff\xfe not json")
    await publish(f"{prefix}.moon.landed", b'{"type":"moon.landed","at":"\\u0000"}')
    await publish(f"{prefix}.moon.landed", b'{"type":"moon.landed","at":"\x01"}')
    await publish("abaco.event.x", b"", headers={"Abaco-Causation": "caf\u00e9"})
    await append(connection, [b.assigned(0, attempt=2**40), b.received(2**62, "foo\x00_0")])
    await append(connection, [b.registered("baz_0"), b.requested(0, "baz_0", revision=2**40)])
    await append(connection, [b.requested(1, "baz_0"), b.ready(1, "baz_0")])
    async with projector(ProjectorSettings(nats_url=nats_url, postgres_dsn=dsn)):
        await reached(dsn, COUNT + 10)
    assert await value(dsn, "SELECT count(*) FROM workers WHERE actor_id = 'baz_0'") == 1
    assert (await verified(connection, dsn)).sequence == COUNT + 10
    kept = "SELECT coalesce(body, convert_to(data::text, 'UTF8')) FROM events WHERE seq = $1"
    assert await value(dsn, kept, COUNT + 1) == b"\xff\xfe not json"
    assert await value(dsn, kept, COUNT + 2) == b'{"type":"moon.landed","at":"\\u0000"}'
    assert await value(dsn, kept, COUNT + 3) == b'{"type":"moon.landed","at":"\x01"}'
    where = "SELECT tenant || '|' || actor_id || '|' || type FROM events WHERE seq = $1"
    assert await value(dsn, where, COUNT + 2) == "default|foo_0|moon.landed"
    assert await value(dsn, where, COUNT + 4) == "x||"


async def test_without_read_models_there_is_nothing_to_verify(
    connection: Connection, postgres_dsn: str
) -> None:
    with pytest.raises(Refused, match="no read models"):
        await verified(connection, postgres_dsn)


# -- the copy ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tampering", "line"),
    [
        (
            "UPDATE events SET data = replace(data::text, 'exec', 'Exec')::json WHERE seq = 5",
            "table events: row 5, column data: expected …",
        ),
        (
            "UPDATE events SET time = time + interval '1 microsecond' WHERE seq = 7",
            (
                "table events: row 7, column time: expected '2026-01-02 03:04:05+00', found"
                " '2026-01-02 03:04:05.000001+00'"
            ),
        ),
        (
            "UPDATE events SET hash = sha256(hash) WHERE seq = 7",
            "table events: row 7, column hash: expected ",
        ),
        (
            f"UPDATE events SET principal = 'user:eve' WHERE seq = {OLD + 1}",
            (f"table events: row {OLD + 1}, column principal: expected '{WHO}', found 'user:eve'"),
        ),
        (
            f"UPDATE events SET principal = NULL WHERE seq = {OLD + 1}",
            f"table events: row {OLD + 1}, column principal: expected '{WHO}', found nothing",
        ),
        (
            "UPDATE events SET principal = 'user:eve' WHERE seq = 5",
            "table events: row 5, column principal: expected nothing, found 'user:eve'",
        ),
        ("DELETE FROM events WHERE seq = 8", "table events: row 8 is missing"),
        (
            f"DELETE FROM events WHERE seq > {COUNT - 3}",
            (
                f"table events ends at row {COUNT - 3}, but the checkpoint is {COUNT}:"
                " its tail is missing"
            ),
        ),
        (
            (
                "UPDATE events SET seq = -seq WHERE seq IN (6, 9);"
                "UPDATE events SET seq = CASE seq WHEN -6 THEN 9 ELSE 6 END WHERE seq < 0"
            ),
            "table events: rows 6 and 9 are swapped",
        ),
    ],
)
async def test_a_changed_copy_is_named(
    connection: Connection, dsn: str, tampering: str, line: str
) -> None:
    await tamper(dsn, tampering)
    assert (await found(connection, dsn)).startswith(line)


# -- the read models -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tampering", "line"),
    [
        (
            "UPDATE executions SET status = 'ERROR' WHERE execution_id = 'bar_0_exc_3'",
            (
                "table executions: row (default, bar_0, 3), column status:"
                " expected 'COMPLETE', found 'ERROR'"
            ),
        ),
        (
            "UPDATE executions SET final_state = NULL WHERE execution_id = 'bar_0_exc_3'",
            "table executions: row (default, bar_0, 3), column final_state: expected '{",
        ),
        (
            "DELETE FROM executions WHERE execution_id = 'foo_0_exc_1'",
            "table executions: row (default, foo_0, 1) is missing",
        ),
        (
            "INSERT INTO subscriptions VALUES ('default', 'foo_0', 'sub_0', 'a', now())",
            "table subscriptions: row (default, foo_0, sub_0) is in no history",
        ),
        (
            "UPDATE actors SET total_cpu_ns = total_cpu_ns + 1 WHERE actor_id = 'foo_0'",
            "table actors: row (default, foo_0), column total_cpu_ns: expected ",
        ),
        (
            "UPDATE workers SET host_id = 'h2' WHERE actor_id = 'foo_0'",
            "table workers: row (default, foo_0_wkr_0), column host_id: expected 'h1', found 'h2'",
        ),
    ],
)
async def test_a_changed_read_model_is_named(
    connection: Connection, dsn: str, tampering: str, line: str
) -> None:
    await tamper(dsn, tampering)
    assert (await found(connection, dsn)).startswith(line)


async def tamper(dsn: str, statements: str) -> None:
    for statement in statements.split(";"):
        await value(dsn, statement)


# -- output --------------------------------------------------------------------------------------

WRITTEN = [b"one\n", b"two\n", b"\xff\0three"]
WHOLE = b"".join(WRITTEN)
SEALED: dict[str, Any] = {"log_bytes": len(WHOLE), "log_sha256": hashlib.sha256(WHOLE).hexdigest()}
RAN: list[ev.Event] = [
    b.joined(),
    b.registered("foo_0"),
    *[event for n in range(6) for event in (b.received(n), b.assigned(n), b.started(n))],
    *[b.finished(n, **SEALED) for n in range(3)],
    b.finished(3, log_bytes=0, log_sha256=hashlib.sha256(b"").hexdigest()),
    b.execution_failed(4),
    b.registered("bar_0", log_ex=60),
    *(b.received(0, "bar_0"), b.assigned(0, "bar_0"), b.started(0, "bar_0")),
    b.finished(0, "bar_0", **SEALED),
]


@pytest.fixture
async def ran(connection: Connection, nats_url: str, postgres_dsn: str) -> str:
    """Read models of runs whose output is stored: the one of run 2 in part, of bar_0 expired."""
    await append(connection, RAN)
    async with projector(ProjectorSettings(nats_url=nats_url, postgres_dsn=postgres_dsn)):
        await reached(postgres_dsn, len(RAN))
    for n in (0, 1, 2, 4, 5):
        offset = 0
        for data in WRITTEN if n != 2 else WRITTEN[:2]:
            await put(postgres_dsn, f"foo_0_exc_{n}", offset, data)
            offset += len(data)
    return postgres_dsn


async def put(dsn: str, execution_id: str, offset: int, data: bytes) -> None:
    row = "INSERT INTO logs VALUES ('default', $1, 1, $2, $3)"
    await value(dsn, row, execution_id, offset, data)


async def test_what_can_be_said_of_output_is_counted(connection: Connection, ran: str) -> None:
    told: list[OutputTally] = []
    await verify(JetStreamEventLog(connection), ran, silent, None, told.append)
    [tally] = told
    assert tally == OutputTally(
        checked=2, expired=1, missing=1, unsealed=2, first_missing="foo_0_exc_2"
    )
    assert str(tally) == (
        "output of 2 runs is what they wrote; not checked: 1 expired,"
        " 1 not stored whole (the first is foo_0_exc_2), 2 of attempts without a recorded digest"
    )


RUN = "table logs: output (default, foo_0, foo_0_exc_1, attempt 1): "
FORGED = hashlib.sha256(WHOLE.replace(b"two", b"six")).hexdigest()


@pytest.mark.parametrize("most", [output_audit.MAX_DATABASE_HASH_BYTES, 0])
@pytest.mark.parametrize(
    ("tampering", "line"),
    [
        (
            "UPDATE logs SET data = 'six\n' WHERE execution_id = 'foo_0_exc_1' AND data = 'two\n'",
            f"{RUN}expected SHA-256 {SEALED['log_sha256']}, found {FORGED}",
        ),
        (
            "INSERT INTO logs VALUES ('default', 'foo_0_exc_1', 1, 15, 'more')",
            f"{RUN}expected 15 bytes, found some up to 19",
        ),
        (
            "INSERT INTO logs VALUES ('default', 'foo_0_exc_1', 1, 2, 'e')",
            f"{RUN}two rows hold the same bytes",
        ),
        (
            "INSERT INTO logs VALUES ('default', 'foo_0_exc_3', 1, 0, 'I said it')",
            f"{RUN.replace('exc_1', 'exc_3')}expected 0 bytes, found some up to 9",
        ),
        (
            (
                "DELETE FROM logs WHERE execution_id = 'foo_0_exc_1' AND output_offset = 0;"
                "UPDATE logs SET output_offset = 20 WHERE execution_id = 'foo_0_exc_1'"
                " AND output_offset = 8"
            ),
            f"{RUN}expected 15 bytes, found some up to 27",
        ),
    ],
)
async def test_changed_output_is_named(  # noqa: PLR0917 - the fixtures
    connection: Connection,
    ran: str,
    tampering: str,
    line: str,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output_audit, "MAX_DATABASE_HASH_BYTES", most)
    await tamper(ran, tampering)
    assert await found(connection, ran) == line


# -- the log -------------------------------------------------------------------------------------


async def test_a_removed_message_is_named(connection: Connection, dsn: str) -> None:
    await connection.jetstream.delete_msg(streams.EVENTS.name, 12)
    assert await found(connection, dsn) == "the log: event 12 is missing"
    await connection.jetstream.delete_msg(streams.EVENTS.name, 1)
    await connection.jetstream.delete_msg(streams.EVENTS.name, 2)
    assert await found(connection, dsn) == "the log: events 1 to 2 are missing"


async def test_a_truncated_log_is_named(connection: Connection, dsn: str) -> None:
    for sequence in range(COUNT - 4, COUNT + 1):
        await connection.jetstream.delete_msg(streams.EVENTS.name, sequence)
    assert await found(connection, dsn) == (
        f"the log ends at event {COUNT - 5}, but the read models have seen {COUNT}:"
        " its tail is missing"
    )


async def test_swapped_messages_are_named(connection: Connection, dsn: str) -> None:
    def swap(drafts: list[Draft]) -> None:
        drafts[5], drafts[8] = drafts[8], drafts[5]

    await log_anew(connection, swap)
    assert await found(connection, dsn) == "the log: events 6 and 9 are swapped"


async def test_a_changed_message_is_named(connection: Connection, dsn: str) -> None:
    def change(drafts: list[Draft]) -> None:
        drafts[4] = draft(
            b.received(0, message="Execute yourself"),
            tenant="default",
            time=b.T0,
            causation_id="req-1",
        )

    await log_anew(connection, change)
    line = await found(connection, dsn)
    assert line.startswith("the log: event 5, column data: expected …")
    assert '"message":"execute' in line.partition("found")[0]
    assert '"message":"Execute' in line.partition("found")[2]


@pytest.mark.parametrize(
    ("sequence", "principal", "line"),
    [
        (OLD + 1, "user:eve", f"expected '{WHO}', found 'user:eve'"),
        (OLD + 1, None, f"expected '{WHO}', found nothing"),
        (5, "user:eve", "expected nothing, found 'user:eve'"),
    ],
)
async def test_a_changed_principal_is_named(
    connection: Connection, dsn: str, sequence: int, principal: str | None, line: str
) -> None:
    def change(drafts: list[Draft]) -> None:
        drafts[sequence - 1] = replace(drafts[sequence - 1], principal=principal)

    await log_anew(connection, change)
    assert await found(connection, dsn) == f"the log: event {sequence}, column principal: {line}"


async def test_a_log_and_a_copy_rewritten_together_are_found_by_a_noted_head(
    connection: Connection, dsn: str, nats_url: str
) -> None:
    noted = COUNT, (await verified(connection, dsn)).hash

    def drop_one(drafts: list[Draft]) -> None:
        drafts[4] = drafts[4]
        del drafts[4]

    await log_anew(connection, drop_one)
    await value(dsn, "DROP TABLE events, actors, executions, workers, subscriptions, logs")
    await value(dsn, "DROP TABLE projection_checkpoints, schema_migrations")
    async with projector(ProjectorSettings(nats_url=nats_url, postgres_dsn=dsn)):
        await reached(dsn, COUNT - 1)
    assert (await verified(connection, dsn)).sequence == COUNT - 1
    with pytest.raises(Difference, match=f"event {COUNT}: the hash noted down is"):
        await verified(connection, dsn, noted)


# -- by hand -------------------------------------------------------------------------------------


async def test_the_query_of_the_docs_finds_the_first_fault(dsn: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "verified-copy.md").read_text()
    query = page.partition("```sql\n")[2].partition(";\n```")[0]
    assert await value(dsn, query) is None
    await value(dsn, f"UPDATE events SET principal = 'user:eve' WHERE seq = {COUNT}")
    assert await value(dsn, query) == COUNT
    await value(dsn, "UPDATE events SET id = 'x' WHERE seq = 9")
    assert await value(dsn, query) == 9
    await value(dsn, "DELETE FROM events WHERE seq = 4")
    assert await value(dsn, query) == 5


EARLIER = {
    4: "UPDATE actors SET definition = definition - 'no_new_privileges'",
    6: "ALTER TABLE workers DROP COLUMN isolation, DROP COLUMN isolation_reason",
}
"""What read models were before a migration."""


@pytest.mark.parametrize("number", EARLIER)
async def test_read_models_of_an_earlier_version_are_migrated_before_they_are_verified(
    number: int, connection: Connection, dsn: str, nats_url: str
) -> None:
    await value(dsn, EARLIER[number])
    await value(dsn, f"DELETE FROM schema_migrations WHERE number = {number}")
    with pytest.raises(Refused, match="of an earlier version: start the projector"):
        await verified(connection, dsn)
    migrated = f"SELECT count(*) > 0 FROM schema_migrations WHERE number = {number}"
    async with projector(ProjectorSettings(nats_url=nats_url, postgres_dsn=dsn)):
        await until(lambda: value(dsn, migrated))
    assert (await verified(connection, dsn)).sequence == COUNT


async def test_a_history_of_the_version_before_principals_is_continued(
    connection: Connection, nats_url: str, postgres_dsn: str
) -> None:
    config = ProjectorSettings(nats_url=nats_url, postgres_dsn=postgres_dsn)
    await append(connection, LIFE[:OLD])
    async with projector(config):
        await reached(postgres_dsn, OLD)
    noted = await value(postgres_dsn, f"SELECT encode(hash, 'hex') FROM events WHERE seq = {OLD}")
    await value(postgres_dsn, "ALTER TABLE events DROP COLUMN principal")
    await value(postgres_dsn, "DELETE FROM schema_migrations WHERE name = 'principal'")
    await append(connection, LIFE[OLD:], WHO)
    async with projector(config):
        await reached(postgres_dsn, COUNT)
    assert (await verified(connection, postgres_dsn, (OLD, noted))).sequence == COUNT
    named = "SELECT array_agg(DISTINCT principal) FROM events WHERE seq {} {}"
    assert await value(postgres_dsn, named.format("<=", OLD)) == [None]
    assert await value(postgres_dsn, named.format(">", OLD)) == [WHO]
