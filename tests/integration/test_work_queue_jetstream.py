"""The work queue of a host with a real server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

import builders as b
from abaco_jetstream import Connection, JetStreamEventLog, JetStreamWorkQueue, work_queue
from abaco_proto import events as ev
from deadlines import LIMIT_SECONDS

PULLED = 4
"""How many messages one pull brings here."""


@pytest.fixture
async def connection(nats_url: str) -> AsyncGenerator[Connection, None]:
    connection = Connection(nats_url, name="test")
    await connection.open()
    yield connection
    await connection.close()


@pytest.mark.parametrize("count", [PULLED, 2 * PULLED + 1])
async def test_a_pull_that_has_brought_all_is_followed_by_the_next(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """After its last message a pull sends nothing, so nothing more may be waited for."""
    monkeypatch.setattr(work_queue, "PULL_MESSAGES", PULLED)
    monkeypatch.setattr(work_queue, "SILENCE_SECONDS", 10 * LIMIT_SECONDS)
    log = JetStreamEventLog(connection)
    for number in range(count + 1):
        await log.append(b.envelope_of(b.requested(number, host_id="h1")))
    taken: list[str] = []
    async with asyncio.timeout(LIMIT_SECONDS):
        async with aclosing(JetStreamWorkQueue(connection, "h1").deliveries()) as deliveries:
            async for delivery in deliveries:
                event = delivery.recorded.event
                assert isinstance(event, ev.WorkerRequested)
                taken.append(event.worker_id)
                await delivery.done()
                if len(taken) > count:
                    break
    assert taken == [f"foo_0_wkr_{number}" for number in range(count + 1)]
