"""A running projector on real servers: what tests append, and conditions that they wait for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

import builders as b
import projections as p
from abaco_jetstream import Connection, JetStreamEventLog
from abaco_projector.adapters.read_model_store import open_store
from abaco_projector.app import projection_loop as loop
from abaco_projector.domain.sanitise import sanitise
from abaco_projector.projector_settings import ProjectorSettings
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft
from abaco_proto.errors import Unavailable
from abaco_proto.names import all_events_filter
from abaco_proto.state_keys import state_keys
from deadlines import LIMIT_SECONDS

DEADLINE_SECONDS = LIMIT_SECONDS

# -- given ---------------------------------------------------------------------------------------


@asynccontextmanager
async def projector(config: ProjectorSettings) -> AsyncIterator[None]:
    """A running projector; its shutdown is part of the test."""
    stop = asyncio.Event()
    running = asyncio.create_task(loop.run(config, stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(LIMIT_SECONDS):
            await running


def actor_history(actor_id: str, messages: int) -> list[ev.Event]:
    """An actor that runs half of its messages, then is purged and deleted."""
    first = [b.registered(actor_id), b.requested(0, actor_id), b.ready(0, actor_id)]
    worker = {"worker_id": f"{actor_id}_wkr_0"}
    runs: list[ev.Event] = []
    for n in range(messages):
        runs.append(b.received(n, actor_id))
        if n % 2:
            makers: tuple[Callable[..., ev.Event], ...] = (b.assigned, b.started, b.finished)
            runs += [make(n, actor_id, **worker) for make in makers]
    purge = ev.InboxPurged(actor_id=actor_id, up_to_ordinal=messages // 2)
    return [*first, *runs, purge, ev.ActorDeleted(actor_id=actor_id)]


async def append(
    connection: Connection, events: Sequence[ev.Event], principal: str | None = None
) -> None:
    """Append with retries: the log may be unavailable."""
    log = JetStreamEventLog(connection)
    for event in events:
        envelope = draft(
            event, tenant="default", time=b.T0, causation_id="req-1", principal=principal
        )
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await _appended(log, envelope):
                await asyncio.sleep(0.05)


async def _appended(log: JetStreamEventLog, envelope: Any) -> bool:
    try:
        await log.append(envelope)
    except Unavailable:
        return False
    return True


async def history_of(connection: Connection) -> list[Recorded]:
    batches = JetStreamEventLog(connection).read([all_events_filter()])
    return [sanitise(recorded) async for batch in batches for recorded in batch]


# -- then ----------------------------------------------------------------------------------------


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():
            await asyncio.sleep(0.02)


async def checkpoint(dsn: str, name: str = "events") -> int:
    """The checkpoint; 0 while there is no table."""
    query = "SELECT sequence FROM projection_checkpoints WHERE name = $1"
    try:
        return int(await value(dsn, query, name) or 0)
    except (OSError, asyncpg.PostgresError):
        return 0


async def value(dsn: str, query: str, *parameters: Any) -> Any:
    client = await asyncpg.connect(dsn)
    try:
        return await client.fetchval(query, *parameters)
    finally:
        await client.close()


async def reached(dsn: str, sequence: int, name: str = "events") -> None:
    async def there() -> bool:
        return await checkpoint(dsn, name) >= sequence

    await until(there)


async def schema_is_there(dsn: str) -> None:
    async def there() -> bool:
        return bool(await value(dsn, "SELECT to_regclass('actors') IS NOT NULL"))

    await until(there)


async def assert_rows_are_the_fold_of(dsn: str, history: list[Recorded]) -> None:
    async with open_store(dsn) as store:
        found = await store.load(state_keys(history))
    assert p.plain(found) == p.plain(p.reference(history))
