"""After a crash at any step, a restarted worker with a launcher completes each work item once."""

import asyncio
from pathlib import Path

import pytest

import builders as b
from abaco_proto import events as ev
from fake_kernel import model
from unit.test_worker_crash import Death
from worker_stage import Stage

LINES = 3000
OUTPUT = "".join(f"{n}\n" for n in range(1, LINES + 1)).encode()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abaco_worker.runs.sandbox_run.RECONNECT_SECONDS", 0.2)


async def script(stage: Stage, ran: Path) -> None:
    """Append the events of a worker, of two runs on it, and of its stop."""
    await stage.until_seen(ev.WorkerReady)
    for n in range(2):
        words = f"echo {n} >>{ran}; seq 1 {LINES}; exit {n}"
        await stage.append(b.received(n, message=words))
        await stage.assign(n)
        await stage.until_seen(ev.ExecutionFinished, n + 1)
    await stage.append(b.stop_requested())
    await stage.until_seen(ev.WorkerStopped)
    await stage.until_idle()


async def play(folder: Path, steps: int, isolation: str) -> tuple[Stage, bool]:
    """Run a service that stops after ``steps``, then another; return whether the first stopped."""
    folder.mkdir()
    stage, death = Stage(folder=folder / "worker", isolation=isolation), Death(steps)
    if isolation == "container":  # a launcher without a container makes no networks for messages
        stage.engine.connected = model(folder)
    await stage.register()
    await stage.request()
    playing = asyncio.create_task(script(stage, folder / "ran"))
    dying = asyncio.create_task(death.come.wait())
    async with stage.service(death):
        await asyncio.wait({playing, dying}, return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if not playing.done():
        async with stage.service():
            stage.queue.redeliver_unsettled()
            await playing
        return stage, True
    await playing
    return stage, False


def check(stage: Stage, folder: Path) -> None:
    """Check in the log and in the programs' files that everything happened exactly once."""
    assert len(stage.seen(ev.WorkerReady)) == 1
    assert len(stage.seen(ev.ExecutionStarted)) == 2
    assert [e.exit_code for e in stage.seen(ev.ExecutionFinished)] == [0, 1]
    assert len(stage.seen(ev.WorkerStopped)) == 1
    assert not stage.seen(ev.WorkerFailed)
    assert not stage.seen(ev.ExecutionFailed)
    assert (folder / "ran").read_text() == "0\n1\n"
    for n, finished in enumerate(stage.seen(ev.ExecutionFinished)):
        assert stage.output(f"foo_0_exc_{n}") == OUTPUT
        assert finished.log_bytes == len(OUTPUT)


@pytest.mark.parametrize("isolation", ["sandbox", "container"])
@pytest.mark.parametrize("residue", range(4))
async def test_a_crash_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, residue: int, isolation: str
) -> None:
    steps = residue
    while True:
        folder = tmp_path / str(steps)
        stage, died = await play(folder, steps, isolation)
        stage.kill()
        check(stage, folder)
        if not died:
            break
        steps += 4
    assert steps > 40
