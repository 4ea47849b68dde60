"""A worker keeps a sandbox ready that fits its actor: limits, and images whose names move."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

import builders as b
from abaco_proto import events as ev
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.engine_values import Image
from abaco_worker.domain.sandbox_spec import LAUNCHER_MEMORY_BYTES, SandboxSpec
from abaco_worker.sandbox.sandbox import Sandbox
from abaco_worker.sandbox.sandbox_pool import SandboxPool
from fake_engine import IMAGE, ME, FakeEngine
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


# -- workers and their sandboxes


async def test_a_worker_is_ready_when_a_sandbox_waits(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        [ready] = stage.seen(ev.WorkerReady)
        [container] = stage.engine.containers.values()
        assert ready.container_id == container.state.container_id
        assert container.process is not None
        assert container.process.poll() is None
        assert container.spec.environment == {}


async def test_what_waits_for_a_message_need_not_wait_for_a_sandbox_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = SandboxPool.take

    async def take(pool: SandboxPool, spec: SandboxSpec) -> tuple[Sandbox, ev.StartKind]:
        asyncio.get_running_loop().call_soon(stage.engine.let_start.set)
        return await taken(pool, spec)

    monkeypatch.setattr(SandboxPool, "take", take)
    stage.engine.let_start.clear()
    async with stage.service():
        await stage.register()
        await stage.append(b.requested(warm=False))
        [ready] = await stage.until_seen(ev.WorkerReady)
        assert ready.container_id is None
        await run(stage, 0, "exit 3")
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    [started] = stage.seen(ev.ExecutionStarted)
    assert started.start_kind is ev.StartKind.COLD
    assert finished.exit_code == 3


async def test_a_run_from_the_pool_and_its_successor(stage: Stage, isolation: str) -> None:
    async with stage.service():
        await with_worker(stage, default_environment={"GREETING": "hello"})
        await stage.append(ev.ActorStateSet(actor_id="foo_0", state="calm", version=1))
        await run(stage, 0, 'echo "$GREETING $_abaco_actor_state"; exit 7')
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        await until_prewarmed(stage)
    [started] = stage.seen(ev.ExecutionStarted)
    assert (started.start_kind, started.container_id) == (KINDS[isolation], "c0")
    assert started.state_sequence == 4
    assert started.taken_at <= started.started_at <= finished.final_state.finished_at
    assert finished.exit_code == 7
    assert finished.cpu_ns > 0
    assert finished.memory_bytes > 0
    assert finished.runtime_ms > 0
    assert started.started_at <= finished.first_output_at <= finished.final_state.finished_at
    assert stage.output("foo_0_exc_0") == b"hello calm\n"


async def test_an_idle_worker_gives_its_sandbox_up(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.append(b.stop_requested())
        await stage.until_seen(ev.WorkerStopped)
        await stage.until_idle()
        await stage.until(lambda: not idle_directories(stage))


async def test_a_sandbox_that_died_is_replaced(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        stage.engine.containers["c0"].kill()
        await stage.until(lambda: list(stage.engine.containers) == ["c1"])
        await until_prewarmed(stage)
        await run(stage, 0, "exit 0")
        await stage.until_seen(ev.ExecutionFinished)
    assert stage.seen(ev.ExecutionStarted)[0].container_id == "c1"


async def test_a_sandbox_that_cannot_be_made_is_tried_again(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        stage.engine.faults = [EngineFault("no space left")] * 4
        stage.engine.containers["c0"].kill()
        await stage.until(lambda: not stage.engine.faults)
        await until_prewarmed(stage)


async def test_other_limits_are_another_sandbox(stage: Stage, isolation: str) -> None:
    async with stage.service():
        await with_worker(stage)
        await stage.append(b.updated(revision=1, image=IMAGE, mem_limit=7 * 2**20, max_cpus=0.5))
        await stage.until(lambda: list(stage.engine.containers) == ["c1"])
        [container] = stage.engine.containers.values()
    beyond = LAUNCHER_MEMORY_BYTES if isolation == "sandbox" else 0
    assert (container.spec.memory_bytes, container.spec.cpus) == (7 * 2**20 + beyond, 0.5)


async def test_no_run_gets_a_sandbox_from_before_an_update(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also holds if the update is received after the assignment that refers to it."""
    monkeypatch.setattr(SandboxPool, "update_spec", lambda pool, spec, sequence: None)
    async with stage.service():
        await with_worker(stage)
        updated = await stage.append(b.updated(revision=1, image=IMAGE, mem_limit=7 * 2**20))
        await run(stage, 0, "exit 0", actor_sequence=updated)
        await stage.until_seen(ev.ExecutionFinished)
        [started] = stage.seen(ev.ExecutionStarted)
        assert started.container_id != "c0"


async def test_an_update_does_not_take_the_sandbox_that_a_run_is_waiting_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for = asyncio.Event()
    taken = SandboxPool.take

    async def take(pool: SandboxPool, spec: SandboxSpec) -> tuple[Sandbox, ev.StartKind]:
        asyncio.get_running_loop().call_soon(waited_for.set)
        return await taken(pool, spec)

    monkeypatch.setattr(SandboxPool, "take", take)
    stage.engine.let_start.clear()
    async with stage.service() as service:
        await stage.register()
        await stage.append(b.requested(warm=False))
        await stage.until_seen(ev.WorkerReady)
        await run(stage, 0, "exit 3")
        await waited_for.wait()
        await stage.append(b.updated(revision=1, image=IMAGE, mem_limit=7 * 2**20))
        await stage.until(lambda: len(stage.engine.containers) == 2)
        stage.engine.let_start.set()
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        await until_prewarmed(stage)
        pool = service._workers[KEY].pool
        await stage.until(lambda: pool.idle is not None)
        assert pool.idle is not None
        assert pool.idle.record.spec.memory_bytes == 7 * 2**20
    assert finished.exit_code == 3
    assert not stage.seen(ev.ExecutionFailed)


async def test_a_worker_whose_first_sandbox_could_not_be_made_gets_another(stage: Stage) -> None:
    stage.engine.faults = [EngineFault("no space left")]
    async with stage.service():
        await with_worker(stage)
    assert not stage.seen(ev.WorkerFailed)
    assert not stage.engine.faults


# -- images whose names move


def other_image(number: int, exit_code: int) -> Image:
    command = ("/bin/sh", "-c", f"exit {exit_code}")
    image_id = f"sha256:{number}"
    return Image(image_id=image_id, digest=f"sha256:d{number}", command=command, user=ME)


async def test_what_waits_with_an_old_image_is_replaced_before_the_next_message(
    stage: Stage, isolation: str
) -> None:
    async with stage.service():
        await with_worker(stage)
        stage.engine.images[IMAGE] = other_image(7, 5)
        await stage.until(lambda: list(stage.engine.containers) == ["c1"])
        await until_prewarmed(stage)
        await run(stage, 0, "exit 0")
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    [started] = stage.seen(ev.ExecutionStarted)
    assert (finished.exit_code, started.image_digest) == (5, "sha256:d7")
    assert started.start_kind is KINDS[isolation]


async def test_no_message_gets_an_old_image_also_when_the_engine_tells_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: FakeEngine) -> AsyncGenerator[None, None]:
        await asyncio.Event().wait()
        yield None

    monkeypatch.setattr(FakeEngine, "image_changes", silent)
    async with stage.service():
        await with_worker(stage)
        stage.engine.images[IMAGE] = other_image(7, 5)
        await run(stage, 0, "exit 0")
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        assert stage.seen(ev.ExecutionStarted)[0].image_digest == "sha256:d7"
        stage.engine.images[IMAGE] = other_image(8, 6)
        updated = await stage.append(b.updated(revision=1, image=IMAGE, description="new"))
        await stage.until(lambda: {"sha256:8"} == image_ids(stage))
        await run(stage, 1, "exit 0", actor_sequence=updated)
        await stage.until_seen(ev.ExecutionFinished, 2)
    assert finished.exit_code == 5
    assert stage.seen(ev.ExecutionStarted)[1].image_digest == "sha256:d8"


def image_ids(stage: Stage) -> set[str]:
    return {container.state.image_id for container in stage.engine.containers.values()}


async def test_an_update_pulls_anew_where_the_policy_says_so(tmp_path: Path) -> None:
    stage = Stage(folder=tmp_path / "worker", pull_policy="always")
    stage.engine.registry[IMAGE] = stage.engine.images[IMAGE]
    try:
        async with stage.service():
            await with_worker(stage)
            stage.engine.registry[IMAGE] = other_image(7, 5)
            await stage.append(b.updated(revision=1, image=IMAGE))
            await stage.until(lambda: image_ids(stage) == {"sha256:7"})
    finally:
        stage.kill()


@pytest.mark.parametrize("trouble", ["away", "untagged"])
async def test_what_waits_is_used_when_nobody_can_tell_its_image(
    stage: Stage, trouble: str
) -> None:
    async with stage.service():
        await with_worker(stage)
        if trouble == "away":
            stage.engine.available = False
        else:
            del stage.engine.images[IMAGE]
        await run(stage, 0, "exit 3")
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        stage.engine.available = True
    assert finished.exit_code == 3
    assert stage.seen(ev.ExecutionStarted)[0].container_id == "c0"
