"""Export and restore on real servers: from the file alone, everything is as before."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import builders as b
from abaco_jetstream import Archive, Connection, JetStreamEventLog, JetStreamOutputLog
from abaco_projector.audit.export import export, restore
from abaco_projector.audit.verify import verify
from abaco_projector.domain.history_difference import Difference
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto import streams
from abaco_proto.errors import Refused, Unavailable
from abaco_proto.output import Output
from projector_stage import actor_history, append, history_of, projector, reached, value
from servers import NatsServer, PostgresServer, scratch_folder

LIFE = [b.joined(), *actor_history("foo_0", 10), *actor_history("bar_0", 10)]
TABLES = ("events", "actors", "executions", "workers", "subscriptions", "logs")
STRANGE = 3

# -- given ---------------------------------------------------------------------------------------


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    opened = Connection(nats_url, name="test", timeout=5)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def dsn(connection: Connection, nats_url: str, postgres_dsn: str) -> str:
    """Read models of a life, with bytes that nobody reads and an id that comes twice."""
    await append(connection, LIFE[:4])
    await append(connection, LIFE[4:], "user:anna")
    publish, subject = connection.jetstream.publish, "abaco.event.default.foo_0.moon.landed"
    await publish(subject, b"\xff\x00", headers={"Nats-Expected-Last-Sequence": str(len(LIFE))})
    await publish(subject, b"", headers={"Nats-Msg-Id": "twice"})
    archive = Archive(connection)
    await archive.restoring(begin=True)
    await archive.restoring(begin=False)
    await publish("abaco.event.default.foo_0.moon.left", b"{}", headers={"Nats-Msg-Id": "once"})
    whose = {"tenant": "default", "actor_id": "foo_0", "execution_id": "foo_0_exc_1"}
    for n in range(3):
        chunk = Output(**whose, attempt=1, offset=10 * n, data=bytes(range(10)))
        await JetStreamOutputLog(connection).write(chunk)
    async with projector(ProjectorSettings(nats_url=nats_url, postgres_dsn=postgres_dsn)):
        await reached(postgres_dsn, len(LIFE) + STRANGE)
        await reached(postgres_dsn, 3, "output")
    return postgres_dsn


@pytest.fixture
async def empty(shared_postgres: PostgresServer) -> AsyncIterator[tuple[Connection, str, str]]:
    """An empty machine: its log, the log's address, and the address of its database."""
    with scratch_folder() as folder:
        server = NatsServer(folder)
        server.start()
        opened = Connection(server.url, name="test", timeout=5)
        await opened.open()
        try:
            dsn = shared_postgres.create_database(f"empty_{server.port}")
            yield opened, server.url, dsn
        finally:
            await opened.close()
            server.kill()


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], object]]:
    yield lambda _: None


async def rows(dsn: str) -> list[Any]:
    query = "SELECT json_agg(t ORDER BY t::text)::text FROM {} t"
    return [await value(dsn, query.format(table)) for table in TABLES]


# -- tests ---------------------------------------------------------------------------------------


async def test_from_the_file_alone_everything_is_as_before(
    connection: Connection, dsn: str, empty: tuple[Connection, str, str], tmp_path: Path
) -> None:
    count = len(LIFE) + STRANGE
    done = await export(connection, dsn, tmp_path / "history", silent)
    assert (done.end.events, done.end.chunks, done.missing_chunks) == (count, 3, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["history"]

    other, other_url, other_dsn = empty
    assert await restore(other, other_dsn, tmp_path / "history", silent) == done.end
    assert await history_of(other) == await history_of(connection)
    async with projector(ProjectorSettings(nats_url=other_url, postgres_dsn=other_dsn)):
        await reached(other_dsn, count)
    head = await verify(JetStreamEventLog(other), other_dsn, silent)
    assert (head.sequence, head.hash) == (count, done.end.hash)
    assert await rows(other_dsn) == await rows(dsn)
    named = "SELECT count(*) FROM events WHERE principal = 'user:anna'"
    assert await value(other_dsn, named) == len(LIFE) - 4

    again = await export(other, other_dsn, tmp_path / "again", silent)
    assert again.end == done.end
    assert (tmp_path / "again").read_bytes() == (tmp_path / "history").read_bytes()
    info = await other.jetstream.stream_info(streams.EVENTS.name)
    assert info.config.duplicate_window == streams.EVENTS.duplicate_window_seconds


async def test_an_interrupted_restore_is_finished_by_the_next(
    connection: Connection, dsn: str, empty: tuple[Connection, str, str], tmp_path: Path
) -> None:
    done = await export(connection, dsn, tmp_path / "history", silent)
    other, _, other_dsn = empty
    some = [m async for batch in Archive(connection).read(until=9) for m in batch]
    await Archive(other).write(some)
    await restore(other, other_dsn, tmp_path / "history", silent)
    await restore(other, other_dsn, tmp_path / "history", silent)
    assert await history_of(other) == await history_of(connection)
    assert await value(other_dsn, "SELECT count(*) FROM logs") == done.end.chunks


async def test_ids_that_come_twice_keep_their_places(
    empty: tuple[Connection, str, str], connection: Connection, tmp_path: Path
) -> None:
    archive = Archive(connection)
    await archive.restoring(begin=True)
    await append(connection, LIFE[:4])
    first = [m async for batch in archive.read(until=4) for m in batch]
    twice = [m for n, m in enumerate([*first, *first], 1) for m in [_at(m, n)]]
    await archive.write(twice[4:])
    await export(connection, None, tmp_path / "history", silent)
    other, _, other_dsn = empty
    end = await restore(other, other_dsn, tmp_path / "history", silent)
    assert end.events == 8
    assert await history_of(other) == await history_of(connection)


def _at(message: Any, sequence: int) -> Any:
    return type(message)(sequence, message.subject, message.headers, message.body)


async def test_only_an_empty_log_is_restored(
    connection: Connection, dsn: str, empty: tuple[Connection, str, str], tmp_path: Path
) -> None:
    await export(connection, dsn, tmp_path / "history", silent)
    other, _, other_dsn = empty
    await append(other, [b.joined("h2")])
    with pytest.raises(Refused, match="not the beginning of this file"):
        await restore(other, other_dsn, tmp_path / "history", silent)
    await append(other, [event for n in range(9) for event in actor_history(f"baz_{n}", 4)])
    with pytest.raises(Refused, match="only an empty log is restored"):
        await restore(other, other_dsn, tmp_path / "history", silent)


async def test_a_damaged_file_restores_nothing(
    connection: Connection, dsn: str, empty: tuple[Connection, str, str], tmp_path: Path
) -> None:
    await export(connection, dsn, tmp_path / "history", silent)
    raw = (tmp_path / "history").read_bytes()
    (tmp_path / "history").write_bytes(raw[:-20])
    other, _, other_dsn = empty
    with pytest.raises(Refused, match="history is damaged"):
        await restore(other, other_dsn, tmp_path / "history", silent)
    assert await history_of(other) == []


async def test_who_appends_meanwhile_is_noticed(
    connection: Connection, dsn: str, empty: tuple[Connection, str, str]
) -> None:
    some = [m async for batch in Archive(connection).read(until=9) for m in batch]
    other, _, _ = empty
    await append(other, [b.joined("h2")])
    with pytest.raises(Unavailable, match="does not accept event 4: wrong last sequence"):
        await Archive(other).write([_at(m, n) for n, m in enumerate(some, 3)][-8:])


async def test_a_log_with_a_gap_is_not_exported(connection: Connection, tmp_path: Path) -> None:
    config = (await connection.jetstream.stream_info(streams.EVENTS.name)).config
    config.deny_delete = False
    await connection.jetstream.delete_stream(streams.EVENTS.name)
    await connection.jetstream.add_stream(config)
    await append(connection, LIFE[:5])
    await connection.jetstream.delete_msg(streams.EVENTS.name, 3)
    with pytest.raises(Difference, match="the log: event 3 is missing"):
        await export(connection, None, tmp_path / "history", silent)
    assert not (tmp_path / "history").exists()
    (tmp_path / "history").write_text("mine")
    with pytest.raises(Refused, match="is there already"):
        await export(connection, None, tmp_path / "history", silent)
