"""The container engine is stopped, or killed, and started again in the middle of runs.

What ran there is gone, through no fault of its image: it is tried again, and each message ends
once. Other tests' sandboxes go with the engine, too, and are replaced.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fault.fleet import Fleet
from stack import Stack, eventually

COUNT = int(os.environ.get("ABACO_TEST_FLEET", "12"))
"""So many in CI; ``ABACO_TEST_FLEET=40`` for the whole of it."""


def dockerd() -> list[int]:
    """The engine's processes; one that has ended and was not waited for is none."""
    named = psutil.process_iter(["name", "status"])
    living = [p for p in named if p.info["status"] != psutil.STATUS_ZOMBIE]
    return [p.pid for p in living if p.info["name"] == "dockerd"]


def start_engine() -> None:
    """By a process of its own, as `make up` does: an engine must not be a test's child."""
    subprocess.run([sys.executable, "-m", "abaco_local.engine"], check=True, timeout=120)


@pytest.fixture
def engine_is_ours() -> None:
    if os.geteuid() or Path("/run/systemd/system").is_dir() or os.environ.get("DOCKER_HOST"):
        pytest.skip("the engine of this machine is somebody else's to restart")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_engine_restarted(new_stack: Stack, engine_is_ours: None, how: signal.Signals) -> None:
    fleet = Fleet(new_stack, f"engine-{how.name.lower()}", COUNT)
    fleet.launch(random.Random(how), seconds=15)
    time.sleep(3)  # some have ended by then, and some have not
    [pid] = dockerd()
    os.kill(pid, how)
    eventually(lambda: pid not in dockerd(), seconds=90, what="dockerd is gone")
    start_engine()
    fleet.check()
