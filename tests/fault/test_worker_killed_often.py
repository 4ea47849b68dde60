"""kill -9 of the worker at random instants with 40 executions in flight; and of everything."""

import os
import random
import signal
import time

import pytest

from fault.fleet import Fleet
from stack import Stack, eventually

KILLS = int(os.environ.get("ABACO_TEST_KILLS", "4"))
"""So many in ``make test``; thirty in ``make faults``."""


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it where the test fails
    return random.Random(seed)


def test_worker_killed_at_random_instants(new_stack: Stack, chance: random.Random) -> None:
    fleet = Fleet(new_stack, "struck")
    fleet.launch(chance, seconds=2.0 * KILLS)
    for _ in range(KILLS):
        pid = eventually(lambda: new_stack.pid("worker") or 0, what="the worker runs")
        time.sleep(chance.uniform(0, 1.5))  # the instant is what is random here
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: new_stack.pid("worker") not in (None, pid), what="another one")  # type: ignore[misc]
    fleet.check()


def test_everything_killed_and_started_again(new_stack: Stack, chance: random.Random) -> None:
    fleet = Fleet(new_stack, "felled")
    fleet.launch(chance, seconds=15)
    time.sleep(chance.uniform(1, 4))  # as above
    for service in new_stack.status()["services"]:
        os.kill(service["pid"], signal.SIGKILL)
    new_stack.up()
    fleet.check()
