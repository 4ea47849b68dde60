"""The projector on a real log and a real database, with the plugs of both within reach."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamOutputLog
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto import events as ev
from abaco_proto.output import Output
from projector_stage import (
    DEADLINE_SECONDS,
    actor_history,
    append,
    assert_rows_are_the_fold_of,
    history_of,
    projector,
    reached,
    schema_is_there,
    value,
)
from servers import NatsServer, PostgresServer

# -- given ---------------------------------------------------------------------------------------


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    opened = Connection(nats_server.url, name="test", timeout=5)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def config(nats_url: str, postgres_dsn: str) -> ProjectorSettings:
    return ProjectorSettings(nats_url=nats_url, postgres_dsn=postgres_dsn, batch_events=7)


# -- tests ---------------------------------------------------------------------------------------


async def test_a_history_goes_in_and_rows_come_out(
    config: ProjectorSettings, connection: Connection
) -> None:
    await append(connection, actor_history("foo_0", 20))
    async with projector(config):
        await append(connection, [b.joined(), *actor_history("bar_0", 10)])
        history = await history_of(connection)
        await reached(config.postgres_dsn, history[-1].sequence)
    await assert_rows_are_the_fold_of(config.postgres_dsn, history)


async def test_it_goes_on_from_its_checkpoint(
    config: ProjectorSettings, connection: Connection
) -> None:
    for actor_id in ("foo_0", "foo_1", "foo_2"):
        await append(connection, actor_history(actor_id, 6))
        history = await history_of(connection)
        async with projector(config):
            await reached(config.postgres_dsn, history[-1].sequence)
    await assert_rows_are_the_fold_of(config.postgres_dsn, history)


async def test_it_survives_the_loss_of_postgres(
    nats_url: str,
    postgres_server: PostgresServer,
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = ProjectorSettings(
        nats_url=nats_url, postgres_dsn=postgres_server.dsn(), batch_events=7
    )
    async with projector(config):
        await append(connection, actor_history("foo_0", 10))
        await reached(config.postgres_dsn, 8)
        await asyncio.to_thread(postgres_server.kill)
        await append(connection, actor_history("foo_1", 10))
        await asyncio.to_thread(postgres_server.start)
        history = await history_of(connection)
        await reached(config.postgres_dsn, history[-1].sequence)
    await assert_rows_are_the_fold_of(config.postgres_dsn, history)
    assert (
        sum(
            record.getMessage().startswith("Postgres is unavailable (") for record in caplog.records
        )
        == 1
    )


async def test_it_waits_for_postgres_at_its_start(
    nats_url: str, postgres_server: PostgresServer, connection: Connection
) -> None:
    await asyncio.to_thread(postgres_server.stop)
    config = ProjectorSettings(nats_url=nats_url, postgres_dsn=postgres_server.dsn())
    await append(connection, actor_history("foo_0", 3))
    async with projector(config):
        await asyncio.to_thread(postgres_server.start)
        history = await history_of(connection)
        await reached(config.postgres_dsn, history[-1].sequence)
    await assert_rows_are_the_fold_of(config.postgres_dsn, history)


async def test_it_survives_the_loss_of_nats(
    config: ProjectorSettings, nats_server: NatsServer, connection: Connection
) -> None:
    async with projector(config):
        await append(connection, actor_history("foo_0", 10))
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(nats_server.start)
        await append(connection, actor_history("foo_1", 10))
        history = await history_of(connection)
        await reached(config.postgres_dsn, history[-1].sequence)
    await assert_rows_are_the_fold_of(config.postgres_dsn, history)


async def test_the_schema_is_there_before_the_log(postgres_dsn: str) -> None:
    async with projector(
        ProjectorSettings(nats_url="nats://127.0.0.1:9", postgres_dsn=postgres_dsn)
    ):
        await schema_is_there(postgres_dsn)


async def test_poison_is_stepped_over_and_counted(
    config: ProjectorSettings, connection: Connection
) -> None:
    prefix = "abaco.event.default.foo_0"
    jetstream = connection.jetstream
    await append(connection, [b.registered(), b.received(0)])
    await jetstream.publish(f"{prefix}.message.received", b"\xff\xfe not json")
    await jetstream.publish(f"{prefix}.moon.landed", b'{"type":"moon.landed"}')
    await jetstream.publish("abaco.event.x", b"")
    await append(
        connection,
        [
            b.failed(reason="no\x00t found"),
            b.assigned(0, attempt=2**40),  # no column holds that
            b.received(1, environment={"\x00": "\x00"}),
            b.received(2**62, actor_id="foo\x00_0"),
            b.received(2**80),
            ev.InboxPurged(actor_id="foo_0", up_to_ordinal=2**80),
            b.received(2),
        ],
    )
    async with projector(config):
        await reached(config.postgres_dsn, 12)
    query = "SELECT status_message FROM actors"
    assert await value(config.postgres_dsn, query) == "no\ufffdt found"
    query = "SELECT skipped FROM projection_checkpoints WHERE name = 'events'"
    assert await value(config.postgres_dsn, query) == 5
    query = "SELECT string_agg(status, ' ' ORDER BY ordinal) FROM executions WHERE actor_id = $1"
    assert await value(config.postgres_dsn, query, "foo_0") == "PURGED PURGED SUBMITTED"


async def test_output_is_there_once(config: ProjectorSettings, connection: Connection) -> None:
    log = JetStreamOutputLog(connection)
    whose = {"tenant": "default", "actor_id": "foo_0", "execution_id": "foo_0_exc_0"}
    text = bytes(range(256)) * 8
    for size in (100, 256, 1000):
        for at in range(0, len(text), size):
            chunk = Output(**whose, attempt=1, offset=at, data=text[at : at + size])
            await log.write(chunk)
    async with projector(config):
        await reached(config.postgres_dsn, 21 + 8 + 2, "output")
    query = "SELECT string_agg(data, '' ORDER BY output_offset) FROM logs"
    assert await value(config.postgres_dsn, query) == text


# -- the process ---------------------------------------------------------------------------------


@contextmanager
def process(config: ProjectorSettings, **more: str) -> Iterator["subprocess.Popen[str]"]:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ABACO_")},
        "ABACO_NATS_URL": config.nats_url,
        "ABACO_POSTGRES_DSN": config.postgres_dsn,
        **more,
    }
    command = [sys.executable, "-m", "abaco_projector"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_at_once(
    config: ProjectorSettings, connection: Connection, how: signal.Signals
) -> None:
    await append(connection, actor_history("foo_0", 3))
    with process(config) as child:
        await reached(config.postgres_dsn, 5)
        child.send_signal(how)
        assert await asyncio.to_thread(child.wait, 2) == 0


async def test_a_signal_ends_it_while_it_waits_for_postgres(config: ProjectorSettings) -> None:
    away = ProjectorSettings(nats_url=config.nats_url, postgres_dsn="postgresql://x@127.0.0.1:9/x")
    with process(away) as child:
        assert child.stderr is not None
        said = await asyncio.wait_for(asyncio.to_thread(child.stderr.readline), DEADLINE_SECONDS)
        assert "Postgres is unavailable (the database (Postgres): " in said
        child.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(child.wait, 2) == 0


async def test_a_signal_ends_it_while_it_waits_for_nats(postgres_dsn: str) -> None:
    with process(
        ProjectorSettings(nats_url="nats://127.0.0.1:9", postgres_dsn=postgres_dsn)
    ) as child:
        await schema_is_there(postgres_dsn)
        child.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(child.wait, 2) == 0


async def test_a_bad_setting_ends_it_with_one_line(config: ProjectorSettings) -> None:
    with process(config, ABACO_BATCH_EVENTS="0") as child:
        _, said = await asyncio.to_thread(child.communicate, timeout=DEADLINE_SECONDS)
    assert child.returncode == 2
    assert said == "abaco-projector: ABACO_BATCH_EVENTS: expected `int` >= 1\n"


async def test_a_later_database_ends_it_with_one_line(config: ProjectorSettings) -> None:
    dsn = config.postgres_dsn
    await value(dsn, "CREATE TABLE schema_migrations (number integer, name text)")
    await value(dsn, "INSERT INTO schema_migrations VALUES (9999, 'future')")
    with process(config, ABACO_LOG_LEVEL="error") as child:
        _, said = await asyncio.to_thread(child.communicate, timeout=DEADLINE_SECONDS)
    assert child.returncode == 2
    assert said.startswith("abaco-projector: the database has schema 9999")
    assert said.count("\n") == 1
