"""Output that is kept for a time only, on a real database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

import builders as b
from abaco_projector.adapters.read_model_store import ReadModelStore, open_store
from abaco_projector.adapters.schema_migrations import migrate
from abaco_projector.app.output_expiry import expire
from abaco_proto import events as ev
from abaco_proto.envelope import format_time
from abaco_proto.output import Output, RecordedOutput
from projector_stage import value


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[ReadModelStore]:
    async with open_store(postgres_dsn) as opened:
        await migrate(opened)
        await opened.checkpoint("events")
        await opened.checkpoint("output")
        yield opened


def ran(ordinal: int, actor_id: str, seconds_ago: float) -> list[ev.Event]:
    at = format_time(datetime.now(UTC) - timedelta(seconds=seconds_ago))
    final = ev.FinalState(status="exited", exit_code=0, started_at=at, finished_at=at)
    worker_id = {"worker_id": f"{actor_id}_wkr_0"}
    return [
        b.received(ordinal, actor_id),
        b.assigned(ordinal, actor_id, **worker_id),
        b.started(ordinal, actor_id, **worker_id),
        b.finished(ordinal, actor_id, final_state=final, **worker_id),
    ]


async def test_output_goes_when_its_actor_says_so(store: ReadModelStore, postgres_dsn: str) -> None:
    events = [
        b.registered("foo_0", log_ex=100),
        b.registered("bar_0"),
        b.registered("big_0", log_ex=10**30),
        b.requested(0, "foo_0"),
        *ran(0, "foo_0", 200),
        *ran(1, "foo_0", 200),
        *ran(2, "foo_0", 20),
        *ran(0, "bar_0", 200),
        *ran(0, "big_0", 200),
        b.received(3, "foo_0"),
    ]
    await store.apply_events(b.history(*events), after=0)
    ids = ["foo_0_exc_0", "foo_0_exc_1", "foo_0_exc_2", "foo_0_exc_3", "bar_0_exc_0", "big_0_exc_0"]
    chunks = [
        RecordedOutput(
            sequence=n,
            output=Output(
                tenant="default", actor_id=i[:5], execution_id=i, attempt=1, offset=0, data=b"x"
            ),
        )
        for n, i in enumerate(ids, 1)
    ]
    await store.apply_output(chunks, after=0)
    assert await expire(postgres_dsn, batch=1) == 2
    assert await expire(postgres_dsn) == 0
    kept = "SELECT string_agg(execution_id, ' ' ORDER BY execution_id) FROM logs"
    assert (await value(postgres_dsn, kept)).split() == sorted(ids[2:])
