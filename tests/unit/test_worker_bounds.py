"""The worker's caches have bounds, in bytes if the items are large."""

import pytest

import builders as b
from abaco_proto import events as ev
from abaco_worker.runs import run_spec_reader
from abaco_worker.runs.run_spec_reader import RunSpecReader
from fake_engine import IMAGE
from fakes import InMemoryEventLog
from worker_stage import Stage


async def test_states_are_remembered_up_to_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_spec_reader, "MAX_CACHED_BYTES", 10_000)
    log = InMemoryEventLog()
    found = RunSpecReader(log)
    definition = await log.append(b.envelope_of(b.registered(image=IMAGE)))
    message = await log.append(b.envelope_of(b.received()))
    for version in range(1, 40):
        state = await log.append(
            b.envelope_of(ev.ActorStateSet(actor_id="foo_0", state="x" * 3000, version=version))
        )
        assigned = b.assigned(
            actor_sequence=definition, message_sequence=message, state_sequence=state
        )
        order = await found.read(b.record(assigned, 99), assigned)
        assert order.state == "x" * 3000
        assert found._cache_bytes <= 10_000
        assert found._cache_bytes == sum(size for _, size in found._cache.values())
    assert state in found._cache


async def test_workers_that_came_and_went_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaco_worker.app.worker_loop.REDELIVERY_SECONDS", 0.0)
    stage = Stage()
    async with stage.service() as service:
        await stage.until(lambda: service._restored)
        await stage.register()
        for number in range(20):
            await stage.request(number)
        await stage.until_seen(ev.WorkerReady, 20)
        for number in range(20):
            await stage.append(b.stop_requested(number))
        await stage.until_seen(ev.WorkerStopped, 20)
        await stage.until(lambda: not service._workers)
        assert not service._seen
        assert not service._unacknowledged
