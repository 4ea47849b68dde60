"""The container engine is stopped, or killed, and started again in the middle of runs.

What ran there is gone, through no fault of its image: it is tried again, and each message ends
once. Other tests' sandboxes go with the engine, too, and are replaced.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from abaco_local import engine
from fault.fleet import Fleet
from stack import Stack, eventually


def dockerd() -> list[int]:
    found = subprocess.run(["pgrep", "-x", "dockerd"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


@pytest.fixture
def engine_is_ours() -> None:
    if os.geteuid() or Path("/run/systemd/system").is_dir() or os.environ.get("DOCKER_HOST"):
        pytest.skip("the engine of this machine is somebody else's to restart")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_engine_restarted(new_stack: Stack, engine_is_ours: None, how: signal.Signals) -> None:
    fleet = Fleet(new_stack, f"engine-{how.name.lower()}")
    fleet.launch(random.Random(how), seconds=15)
    time.sleep(3)  # some have ended by then, and some have not
    [pid] = dockerd()
    os.kill(pid, how)
    eventually(lambda: pid not in dockerd(), seconds=60, what="dockerd is gone")
    engine.ensure(lambda _: None)
    fleet.check()
