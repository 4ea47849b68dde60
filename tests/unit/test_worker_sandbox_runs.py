"""Runs in sandboxes: how they end, and runs that are repeated."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import builders as b
from abaco_proto import events as ev
from disks import Disk, small_disk
from fake_engine import IMAGE, ME
from sandbox_runs import KEY, KINDS, hurry, run, stage_in, until_prewarmed, with_worker
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


@pytest.fixture
def short_grace(tmp_path: Path, isolation: str) -> Iterator[Stage]:
    """A stage whose worker has a short halt grace."""
    with stage_in(tmp_path, isolation, halt_grace_seconds=0.2) as stage:
        yield stage


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
