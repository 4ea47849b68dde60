"""The copy checked against the log: clean, and every column that was changed is noticed."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

import builders as b
import projections as p
from abaco_projector.adapters.read_model_store import ReadModelStore, open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.audit.copy_audit import CopyDiffers, VerifiedCopy, check_ends, open_audit
from abaco_proto import events as ev
from abaco_proto.envelope import MAX_HOPS, Recorded
from projector_stage import value

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PLAIN = p.recorded([b.registered(), b.requested(), b.ready(), b.received(0), b.assigned(0)])
PLAIN[3] = replace(PLAIN[3], principal="user:anna")
ODD = [
    replace(PLAIN[0], traceparent=TRACE, hops=MAX_HOPS, correlation_id="caf\u00e9\ud800"),
    replace(PLAIN[1], id="a\x00b", traceparent="caf\u00e9", principal="\ud800\x00"),
    replace(PLAIN[2], time=datetime(1, 1, 2, tzinfo=UTC), subject="abaco.event.x", principal=""),
    replace(PLAIN[3], event=ev.Unrecognized(raw=b"\xff", reason="?"), raw=b"\xff"),
    replace(PLAIN[4], event=ev.Unrecognized(raw=b"", reason="?"), raw=b""),
]
COUNT = len(PLAIN)


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[ReadModelStore]:
    async with open_store(postgres_dsn) as opened:
        await migrate(opened)
        await opened.checkpoint("events")
        yield opened


async def checked(dsn: str, history: list[Recorded], *, after: int = 0, until: int = COUNT) -> None:
    async with open_audit(VerifiedCopy(dsn, "public", until), after) as audit:
        await audit.check(history[after : after + 2])
        await audit.check(history[after + 2 :])


@pytest.mark.parametrize("history", [PLAIN, ODD])
async def test_what_was_copied_is_what_postgres_gives(
    store: ReadModelStore, postgres_dsn: str, history: list[Recorded]
) -> None:
    await store.apply_events(history, after=0)
    await checked(postgres_dsn, history)
    await checked(postgres_dsn, history, after=3)
    await checked(postgres_dsn, history[:4], until=3)


async def test_where_the_body_is_kept_does_not_matter(
    store: ReadModelStore, postgres_dsn: str
) -> None:
    await store.apply_events(PLAIN, after=0, body_as_bytes=True)
    await checked(postgres_dsn, PLAIN)


@pytest.mark.parametrize(
    "change",
    [
        "time = time + interval '1 microsecond'",
        "tenant = 'x'",
        "actor_id = 'x'",
        "type = 'x'",
        "tenant = tenant || '.foo_0', actor_id = 'x'",
        "id = 'x'",
        "id = left(id, -1), causation_id = right(id, 1) || causation_id",
        "causation_id = 'x'",
        "correlation_id = 'x'",
        "hops = hops + 1",
        "principal = NULL",
        "principal = 'user:eve'",
        "principal = left(principal, -1), subject = right(principal, 1) || subject",
        "traceparent = ''",
        "subject = subject || '.h1'",
        "data = NULL",
        "data = replace(data::text, ':', ': ')::json",
        "data = '{}', body = convert_to(data::text, 'UTF8')",
        "hash = sha256(hash)",
        "seq = 9",
    ],
)
async def test_every_change_is_noticed(
    store: ReadModelStore, postgres_dsn: str, change: str
) -> None:
    await store.apply_events(PLAIN, after=0)
    await value(postgres_dsn, f"UPDATE events SET {change} WHERE seq = 4")
    with pytest.raises(CopyDiffers):
        await checked(postgres_dsn, PLAIN)


async def test_an_event_that_the_log_has_lost_is_noticed(
    store: ReadModelStore, postgres_dsn: str
) -> None:
    await store.apply_events(PLAIN, after=0)
    for lost in range(COUNT - 1):
        with pytest.raises(CopyDiffers):
            await checked(postgres_dsn, [one for one in PLAIN if one is not PLAIN[lost]])


async def test_a_start_that_is_not_there_is_noticed(
    store: ReadModelStore, postgres_dsn: str
) -> None:
    await store.apply_events(PLAIN, after=0)
    await value(postgres_dsn, "DELETE FROM events WHERE seq = 2")
    with pytest.raises(CopyDiffers, match="no event 2"):
        await checked(postgres_dsn, PLAIN, after=2)


@pytest.mark.parametrize("seq", [0, COUNT + 1])
async def test_what_stands_beyond_the_ends_is_noticed(
    store: ReadModelStore, postgres_dsn: str, seq: int
) -> None:
    await store.apply_events(PLAIN, after=0)
    copy = VerifiedCopy(postgres_dsn, "public", COUNT)
    await check_ends(store.session, copy)
    await value(postgres_dsn, f"UPDATE events SET seq = {seq} WHERE seq = 3")
    with pytest.raises(CopyDiffers):
        await check_ends(store.session, copy)
