"""A process ends after a signal, even if a task or a thread does not."""

import subprocess
import sys

import pytest

from deadlines import LIMIT_SECONDS

PROGRAM = """\
import asyncio, logging, time
from abaco_telemetry import shutdown

logging.basicConfig(format="%(message)s")
shutdown.LIMIT_SECONDS = {limit}

async def deaf() -> None:
    while True:
        try:
            print("ready", flush=True)
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def thread() -> None:
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, time.sleep, 3600)
    loop.call_soon(print, "ready")
    await asyncio.sleep(3600)

async def obedient() -> None:
    print("ready", flush=True)
    await asyncio.sleep(3600)

async def main() -> None:
    task = asyncio.ensure_future({kind}())
    shutdown.on_signal(task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        print("cancelled", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("kind", "limit", "code", "logged"),
    [
        ("deaf", 0.2, 1, "did not shut down within 0.2 s. It waited for: deaf, main"),
        ("thread", 0.2, 1, "did not shut down within 0.2 s. It waited for: "),
        ("obedient", LIMIT_SECONDS, 0, ""),
    ],
)
def test_a_process_ends_after_a_signal(kind: str, limit: float, code: int, logged: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM.format(kind=kind, limit=limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.terminate()
            _, errors = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            process.kill()
    assert process.returncode == code
    assert logged in errors
    assert bool(errors) == bool(logged)
