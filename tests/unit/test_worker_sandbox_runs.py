"""Sandbox runs: real launchers as plain processes, an engine and a log in memory."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

import builders as b
from abaco_proto import events as ev
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.engine_values import Image
from abaco_worker.domain.sandbox_spec import LAUNCHER_MEMORY_BYTES, SandboxSpec, WorkerKey
from abaco_worker.sandbox.sandbox import Sandbox
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from abaco_worker.sandbox.sandbox_pool import SandboxPool
from disks import Disk, small_disk
from fake_engine import IMAGE, ME, FakeEngine
from fake_kernel import model
from worker_stage import Stage

KEY = WorkerKey("default", "foo_0", "foo_0_wkr_0")


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaco_worker.app.worker_unit.back_off", lambda tries: 0.001)
    monkeypatch.setattr("abaco_worker.sandbox.sandbox_pool.back_off", lambda tries: 0.001)
    monkeypatch.setattr("abaco_worker.app.worker_loop.POOL_CHECK_SECONDS", 0.01)
    monkeypatch.setattr("abaco_worker.runs.disk_limit.MEASURE_SECONDS", 0.01)
    monkeypatch.setattr("abaco_worker.sandbox.sandbox.RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr("abaco_worker.runs.sandbox_run.RECONNECT_SECONDS", 0.1)


@pytest.fixture(params=["sandbox", "container"])
def isolation(request: pytest.FixtureRequest) -> str:
    """What each message gets."""
    return str(request.param)


@pytest.fixture
def stage(tmp_path: Path, isolation: str) -> Iterator[Stage]:
    stage = Stage(folder=tmp_path / "worker", halt_grace_seconds=5, isolation=isolation)
    yield stage
    stage.kill()


@pytest.fixture
def short_grace(tmp_path: Path, isolation: str) -> Iterator[Stage]:
    """A stage whose worker has a short halt grace."""
    stage = Stage(folder=tmp_path / "worker", halt_grace_seconds=0.2, isolation=isolation)
    yield stage
    stage.kill()


async def with_worker(stage: Stage, **definition: object) -> None:
    """The worker foo_0_wkr_0 is ready."""
    await stage.register(**definition)
    await stage.request()
    await stage.until_seen(ev.WorkerReady)


async def run(stage: Stage, ordinal: int, script: str, **changes: object) -> None:
    await stage.append(b.received(ordinal, message=script))
    await stage.assign(ordinal, **changes)


def idle_directories(stage: Stage) -> list[str]:
    """Return the idle sandboxes."""
    assert stage.folder is not None
    folders = (path for path in stage.folder.iterdir() if path.is_dir())
    return [path.name for path in folders if not SandboxDirectory(path).runs()]


KINDS = {"sandbox": ev.StartKind.SANDBOX, "container": ev.StartKind.POOL}
"""How a run starts that need not wait for a container."""


async def until_prewarmed(stage: Stage, count: int = 1) -> None:
    """Wait for ``count`` idle sandboxes and no other container."""
    await stage.until(
        lambda: (
            len(idle_directories(stage))
            == count
            == len(stage.engine.containers)
            == stage.idle_sandboxes()
        )
    )


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


# -- how runs end


async def test_a_person_halts_a_run(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        script = "exec 2>/dev/null; trap 'echo bye; exit 5' TERM; echo up"
        await run(stage, 0, f"{script}; while :; do sleep 0.01; done")
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"up\n")
        await stage.append(b.halt_requested())
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.exit_code == 5
    assert finished.final_state.ended_by is ev.EndedBy.HALT
    assert finished.final_state.error == "halted by a person"
    assert stage.output("foo_0_exc_0") == b"up\nbye\n"


async def test_a_halt_that_is_ignored_ends_in_a_kill(short_grace: Stage) -> None:
    stage = short_grace
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "trap '' TERM; echo up; while :; do sleep 0.01; done")
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"up\n")
        await stage.append(b.halt_requested())
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.final_state.signal == signal.SIGKILL
    assert finished.exit_code == 137


async def test_a_halt_that_comes_before_the_start(stage: Stage) -> None:
    async with stage.service() as service:
        await with_worker(stage)
        await stage.append(b.received(0, message="exit 0"))
        await stage.append(b.halt_requested())
        halt = service._host.cancellations.event_of("default", "foo_0_exc_0")
        await stage.until(halt.is_set)
        await stage.assign()
        [failed] = await stage.until_seen(ev.ExecutionFailed)
    assert failed.reason == "halted before it started"
    assert not stage.seen(ev.ExecutionStarted)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "worker", 2) as disk:
        yield disk


async def test_a_halt_works_on_a_full_disk(disk: Disk, stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "echo up; exec sleep 60")
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"up\n")
        disk.fill()
        await stage.append(b.halt_requested())
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.final_state.ended_by is ev.EndedBy.HALT
    assert finished.final_state.error == "halted by a person"


async def test_a_run_that_a_full_disk_hinders_leaves_no_container(disk: Disk, stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        disk.fill()
        await run(stage, 0, "exit 3")
        [failed] = await stage.until_seen(ev.ExecutionFailed)
        assert "No space left on device" in failed.reason
        disk.empty()
        await until_prewarmed(stage)
        await stage.assign(0, attempt=2)
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.exit_code == 3
    assert not stage.seen(ev.WorkerFailed)


async def test_a_run_takes_too_long(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage, max_run_seconds=0.1)
        await run(stage, 0, "exec sleep 60")
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.final_state.ended_by is ev.EndedBy.MAX_RUN_SECONDS
    assert finished.exit_code == 128 + signal.SIGTERM
    assert "max_run_seconds" in finished.final_state.error


async def test_a_run_writes_too_much_to_disk(stage: Stage, isolation: str) -> None:
    async with stage.service():
        await with_worker(stage, max_disk_bytes=1000)
        await run(stage, 0, "exec sleep 60")
        await stage.until_seen(ev.ExecutionStarted)
        if isolation == "sandbox":
            assert stage.folder is not None
            [folder] = (path for path in stage.folder.iterdir() if path.is_dir())
            (folder / "layers" / "2" / "upper").mkdir(parents=True)
            (folder / "layers" / "2" / "upper" / "file").write_bytes(b"x" * 5000)
        else:
            stage.engine.containers["c0"].written = 1001
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.final_state.ended_by is ev.EndedBy.MAX_DISK_BYTES


async def test_the_kernel_ends_no_file_since_a_hole_in_it_is_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    async with stage.service():
        await with_worker(stage, max_disk_bytes=1000)
        await run(stage, 0, f"exec dd if=/dev/zero of={tmp_path}/file bs=1 count=1 seek=20G")
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.final_state.ended_by is ev.EndedBy.ITSELF
    assert finished.exit_code == 0
    assert (tmp_path / "file").stat().st_size == 20 * 2**30 + 1


async def test_a_run_that_limits_its_own_files_is_ended_by_itself(
    stage: Stage, tmp_path: Path
) -> None:
    async with stage.service():
        await with_worker(stage, max_disk_bytes=1000)
        await run(stage, 0, f"ulimit -f 1; exec dd if=/dev/zero of={tmp_path}/file bs=4000 count=9")
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.final_state.ended_by is ev.EndedBy.ITSELF
    assert finished.final_state.signal == signal.SIGXFSZ


async def test_too_much_output_is_cut_off_with_a_mark(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage, max_log_bytes=5)
        await run(stage, 0, "printf 0123456789")
        await run(stage, 1, "printf 01234")
        cut, whole = await stage.until_seen(ev.ExecutionFinished, 2)
    assert stage.output("foo_0_exc_0") == b"01234\n[abaco: output truncated at 5 bytes]\n"
    assert cut.log_truncated
    assert stage.output("foo_0_exc_1") == b"01234"
    assert not whole.log_truncated


async def test_a_command_that_cannot_be_run_is_a_result(stage: Stage) -> None:
    stage.engine.images[IMAGE] = stage.engine.images[IMAGE].__class__(
        image_id="sha256:1", digest="sha256:d1", command=("/nope",)
    )
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "")
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.exit_code == 127
    assert "/nope" in finished.final_state.error
    assert not stage.seen(ev.ExecutionStarted)


async def test_a_sandbox_killed_in_a_run_fails_the_attempt(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "echo up; exec sleep 60")
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"up\n")
        stage.engine.containers["c0"].kill()
        [failed] = await stage.until_seen(ev.ExecutionFailed)
        assert "its container ended without a report" in failed.reason
        await stage.assign(0, attempt=2)
        await stage.until(lambda: stage.output("foo_0_exc_0", 2) == b"up\n")
    assert not stage.seen(ev.WorkerFailed)


async def test_a_run_whose_worker_is_lost_is_stopped_and_not_reported(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage)
        await run(stage, 0, "echo up; exec sleep 60")
        await stage.until(lambda: stage.output("foo_0_exc_0") == b"up\n")
        await stage.append(b.lost())
        await stage.until_idle()
    assert not stage.seen(ev.ExecutionFinished)
    assert not stage.seen(ev.ExecutionFailed)


async def test_a_run_again_has_the_inputs_of_then(stage: Stage) -> None:
    async with stage.service():
        await with_worker(stage, default_environment={"A": "then"})
        state = await stage.append(ev.ActorStateSet(actor_id="foo_0", state="old", version=1))
        await stage.append(ev.ActorStateSet(actor_id="foo_0", state="new", version=2))
        now = await stage.append(
            b.updated(revision=1, image=IMAGE, default_environment={"A": "now"})
        )
        rerun = ev.Rerun(
            execution_id="foo_0_exc_0", actor_sequence=1, state_sequence=state, image=IMAGE
        )
        script = 'echo "$A $_abaco_actor_state"'
        await stage.append(b.received(0, message=script, rerun=rerun))
        await stage.assign(0, actor_sequence=now)
        await stage.until_seen(ev.ExecutionFinished)
    assert stage.output("foo_0_exc_0") == b"then old\n"
    assert stage.seen(ev.ExecutionStarted)[0].state_sequence == state


async def test_a_rerun_whose_image_is_gone_fails_alone(stage: Stage, isolation: str) -> None:
    """The idle sandbox is kept for the next message, and the worker stays ready."""
    async with stage.service() as service:
        await with_worker(stage)
        gone = ev.Rerun(
            execution_id="foo_0_exc_0", actor_sequence=1, state_sequence=0, image="sha256:gone"
        )
        await stage.append(b.received(0, message="exit 0", rerun=gone))
        await stage.assign(0)
        await run(stage, 1, "exit 3")
        [failed] = await stage.until_seen(ev.ExecutionFailed)
        assert "sha256:gone" in failed.reason
        assert KEY in service._workers
        [finished] = await stage.until_seen(ev.ExecutionFinished)
    assert finished.exit_code == 3
    [started] = stage.seen(ev.ExecutionStarted)
    assert (started.container_id, started.start_kind) == ("c0", KINDS[isolation])
    assert not stage.seen(ev.WorkerFailed)


async def test_a_rerun_leaves_what_waits_for_the_next_message(stage: Stage, isolation: str) -> None:
    then = stage.engine.images[IMAGE].__class__(
        image_id="sha256:then", digest="sha256:then", command=("/bin/sh", "-c", "exit 5"), user=ME
    )
    stage.engine.images["sha256:then"] = then
    async with stage.service():
        await with_worker(stage)
        again = ev.Rerun(
            execution_id="foo_0_exc_0", actor_sequence=1, state_sequence=0, image="sha256:then"
        )
        await stage.append(b.received(0, message="exit 0", rerun=again))
        await stage.assign(0)
        [finished] = await stage.until_seen(ev.ExecutionFinished)
        assert finished.exit_code == 5
        await run(stage, 1, "exit 3")
        await stage.until_seen(ev.ExecutionFinished, 2)
    first, second = stage.seen(ev.ExecutionStarted)
    assert (first.image_digest, first.start_kind) == ("sha256:then", ev.StartKind.COLD)
    assert (second.container_id, second.start_kind) == ("c0", KINDS[isolation])


# -- restarts of the worker


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
