"""A restarted worker uses the sandboxes, and reports the runs, of the process before it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import builders as b
from abaco_proto import events as ev
from fake_engine import IMAGE
from fake_kernel import model
from sandbox_runs import (
    KEY,
    KINDS,
    hurry,
    idle_directories,
    run,
    stage_in,
    until_prewarmed,
    with_worker,
)
from worker_stage import Stage


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture(params=["sandbox", "container"])
def isolation(request: pytest.FixtureRequest) -> str:
    """What each message gets."""
    return str(request.param)


@pytest.fixture
def stage(tmp_path: Path, isolation: str) -> Iterator[Stage]:
    with stage_in(tmp_path, isolation) as stage:
        yield stage


async def test_what_waits_at_the_end_waits_for_the_next_worker(
    stage: Stage, isolation: str
) -> None:
    async with stage.service():
        await with_worker(stage)
    async with stage.service() as service:
        await stage.until(lambda: KEY in service._workers)
        await stage.until(lambda: service._workers[KEY].pool.idle is not None)
        await run(stage, 0, "exit 0")
        await stage.until_seen(ev.ExecutionFinished)
    assert stage.seen(ev.ExecutionStarted)[0].container_id == "c0"
    assert stage.seen(ev.ExecutionStarted)[0].start_kind is KINDS[isolation]


@pytest.mark.parametrize("isolation", ["container"])  # the second container is another one
@pytest.mark.parametrize("connected", [True, False])
async def test_a_sandbox_waits_for_the_next_worker_once_it_is_connected(
    stage: Stage,
    tmp_path: Path,
    connected: bool,  # noqa: FBT001
) -> None:
    stage.engine.connected = model(tmp_path)
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "exit 0")
        await stage.until_seen(ev.ExecutionFinished)
        await until_prewarmed(stage)
        [before] = idle_directories(stage)
        address = tmp_path / "worker" / before / "address"
        await stage.until(address.exists)
    if not connected:
        address.unlink()
    async with stage.service() as service:
        await stage.until(
            lambda: (
                idle_directories(stage) == [before]
                if connected
                else before not in idle_directories(stage)
            )
        )
        await stage.until(lambda: KEY in service._workers)
        await stage.until(lambda: service._workers[KEY].pool.idle is not None)
        await run(stage, 1, "exit 0")
        await stage.until_seen(ev.ExecutionFinished, 2)
    [_, started] = stage.seen(ev.ExecutionStarted)
    assert (started.container_id == "c1") is connected


@pytest.mark.parametrize("isolation", ["container"])
async def test_what_cannot_be_connected_is_made_again_by_the_engine(
    stage: Stage, tmp_path: Path
) -> None:
    stage.engine.connected = model(tmp_path)
    async with stage.service():
        await with_worker(stage)
        stage.kernel.refusal = OSError(1, "Operation not permitted")
        for ordinal in range(3):
            await run(stage, ordinal, "exit 0")
            await stage.until_seen(ev.ExecutionFinished, ordinal + 1)
        await until_prewarmed(stage)
    assert len(stage.kernel.tries) == 1
    assert not stage.seen(ev.ExecutionFailed)


async def test_a_worker_without_a_sandbox_gets_one_at_the_start(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
    await stage.engine.remove("c0")
    async with stage.service():
        await until_prewarmed(stage)
    assert list(stage.engine.containers) == ["c1"]


async def test_a_run_from_before_an_update_leaves_the_sandbox_to_the_next_message(
    stage: Stage, isolation: str
) -> None:
    """It was assigned under the old definition, and is received by a worker that knows the new."""
    async with stage.service():
        await with_worker(stage)
    await stage.engine.remove("c0")
    updated = await stage.append(b.updated(revision=1, image=IMAGE, mem_limit=7 * 2**20))
    async with stage.service():
        await until_prewarmed(stage)
        await run(stage, 0, "exit 0")
        await stage.until_seen(ev.ExecutionFinished)
        await run(stage, 1, "exit 0", actor_sequence=updated)
        await stage.until_seen(ev.ExecutionFinished, 2)
    first, second = stage.seen(ev.ExecutionStarted)
    assert first.start_kind is ev.StartKind.COLD
    assert (second.container_id, second.start_kind) == ("c1", KINDS[isolation])


async def test_a_sandbox_of_a_worker_that_is_gone_is_removed(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
    await stage.append(b.lost())
    async with stage.service():
        await stage.until(lambda: not stage.engine.containers and not idle_directories(stage))


async def test_a_run_goes_on_and_is_reported_by_the_next_worker(
    stage: Stage, tmp_path: Path, isolation: str
) -> None:
    go = tmp_path / "go"
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, f"echo one; until [ -e {go} ]; do sleep 0.01; done; echo two; exit 6")
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"one\n")
    go.touch()
    async with stage.service():
        stage.queue.redeliver_unsettled()
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        await until_prewarmed(stage)
    assert finished.exit_code == 6
    assert stage.output("foo_0_exc_0") == b"one\ntwo\n"
    [started] = stage.seen(ev.ExecutionStarted)
    assert started.start_kind is KINDS[isolation]


async def test_a_run_whose_container_went_with_the_worker_is_for_another_attempt(
    stage: Stage,
) -> None:
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "exec sleep 60")
        await stage.until_seen(ev.ExecutionStarted)
    await stage.engine.remove("c0")
    async with stage.service():
        stage.queue.redeliver_unsettled()
        [failed] = await stage.until_seen(ev.ExecutionFailed)
        await stage.until(lambda: len(stage.engine.containers) == len(idle_directories(stage)) == 1)
    assert failed.reason.startswith("its container is gone")


async def test_a_halt_from_while_no_worker_was_there(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "exec sleep 60")
        await stage.until_seen(ev.ExecutionStarted)
    await stage.append(b.halt_requested())
    async with stage.service():
        stage.queue.redeliver_unsettled()
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.final_state.ended_by is ev.EndedBy.HALT
