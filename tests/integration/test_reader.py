"""The log read in a process of its own is the log."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_jetstream.ports import Batch
from abaco_projector.app.log_range import ReadableLog, read_range
from abaco_projector.audit import log_reader_process as reader
from abaco_projector.audit.copy_audit import CopyDiffers, VerifiedCopy
from abaco_projector.audit.log_reader_process import SubprocessLogReader, audited
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.names import all_events_filter
from deadlines import LIMIT_SECONDS
from projector_stage import actor_history, append, projector, reached, value

LIFE = [b.joined(), *actor_history("foo_0", 10)]

DEADLINE_SECONDS = LIMIT_SECONDS
"""A reader that stands still is a failure, and no test without end."""


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    opened = Connection(nats_url, name="test", timeout=5)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def log(
    connection: Connection, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> SubprocessLogReader:
    monkeypatch.setattr(reader, "MIN_SUBPROCESS_EVENTS", 0)
    return SubprocessLogReader(JetStreamEventLog(connection), nats_url)


def readers() -> list[int]:
    """The processes that read for us."""
    own = f"/proc/self/task/{Path('/proc/self').resolve().name}/children"
    return [int(pid) for pid in Path(own).read_text().split()]


async def test_another_process_reads_the_same(
    connection: Connection, log: SubprocessLogReader
) -> None:
    await append(connection, LIFE)
    await connection.jetstream.publish("abaco.event.default.foo_0.moon.landed", b"\xff")
    before = readers()
    batches = read_range(log, after=3, until=len(LIFE) + 1)
    async with asyncio.timeout(DEADLINE_SECONDS):
        found = [recorded async for batch in batches for recorded in batch]
    here = JetStreamEventLog(connection).read([all_events_filter()], after=3)
    assert found == [recorded async for batch in here for recorded in batch]
    assert len(found) == len(LIFE) - 2
    assert readers() == before


async def test_a_reader_that_dies_is_noticed(
    connection: Connection, log: SubprocessLogReader
) -> None:
    await append(connection, LIFE)
    before = readers()
    async with aclosing(log.follow([all_events_filter()])) as batches:
        assert (await anext(batches)).events
        (child,) = set(readers()) - set(before)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(Unavailable, match="the process that reads the log has ended"):
            await exhausted(batches)


async def test_it_checks_the_copy(
    connection: Connection, log: SubprocessLogReader, nats_url: str, postgres_dsn: str
) -> None:
    await append(connection, LIFE)
    async with projector(ProjectorSettings(nats_url=nats_url, postgres_dsn=postgres_dsn)):
        await reached(postgres_dsn, len(LIFE))
    checked = audited(log, VerifiedCopy(postgres_dsn, "public", len(LIFE)))
    found = [(r.sequence, r.event, r.time) for r in await events_of(checked)]
    assert found == [(r.sequence, r.event, r.time) for r in await events_of(log)]
    await value(postgres_dsn, "UPDATE events SET hops = 1 WHERE seq = 7")
    with pytest.raises(CopyDiffers):
        await events_of(checked)


async def events_of(log: ReadableLog) -> list[Recorded]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return [r async for batch in read_range(log, after=0, until=len(LIFE)) for r in batch]


async def exhausted(batches: AsyncGenerator[Batch, None]) -> None:
    async for _ in batches:
        pass
