"""After a crash at any step, a restarted worker completes each work item exactly once."""

import asyncio

import pytest

import builders as b
from abaco_proto import events as ev
from fake_engine import Program
from worker_stage import Stage

LINES = 6000
OUTPUT = "".join(f"{n}\n" for n in range(1, LINES + 1)).encode()


class Death:
    """A gate that blocks after ``steps`` passages."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.come = asyncio.Event()

    async def __call__(self) -> None:
        if self.left == 0:
            self.come.set()
            await asyncio.Event().wait()
        self.left -= 1


async def script(stage: Stage) -> None:
    """Append the events of a worker, of two runs on it, and of its stop."""
    await stage.until_seen(ev.WorkerReady)
    for n in range(2):
        await stage.send(n, Program(lines=LINES, exit_code=n))
        await stage.assign(n)
        await stage.until_seen(ev.ExecutionFinished, n + 1)
    await stage.append(b.stop_requested())
    await stage.until_seen(ev.WorkerStopped)
    await stage.until_idle()


async def play(steps: int) -> tuple[Stage, bool]:
    """Run a service that stops after ``steps``, then another; return whether the first stopped."""
    stage, death = Stage(), Death(steps)
    await stage.register()
    await stage.request()
    playing = asyncio.create_task(script(stage))
    dying = asyncio.create_task(death.come.wait())
    async with stage.service(death):
        await asyncio.wait({playing, dying}, return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if playing.done():
        await playing
        return stage, False
    async with stage.service():
        stage.queue.redeliver_unsettled()
        await playing
    return stage, True


def check(stage: Stage) -> None:
    """Check that everything happened exactly once."""
    assert len(stage.seen(ev.WorkerReady)) == 1
    assert len(stage.seen(ev.ExecutionStarted)) == 2
    assert [e.exit_code for e in stage.seen(ev.ExecutionFinished)] == [0, 1]
    assert len(stage.seen(ev.WorkerStopped)) == 1
    assert not stage.seen(ev.WorkerFailed)
    assert len(stage.engine.starts) == len(set(stage.engine.starts)) == 2
    for n, finished in enumerate(stage.seen(ev.ExecutionFinished)):
        assert stage.output(f"foo_0_exc_{n}") == OUTPUT
        assert finished.log_bytes == len(OUTPUT)


@pytest.mark.parametrize("residue", range(4))
async def test_a_crash_at_any_step_loses_and_doubles_nothing(residue: int) -> None:
    steps = residue
    while True:
        stage, died = await play(steps)
        check(stage)
        if not died:
            break
        steps += 4
    assert steps > 60
