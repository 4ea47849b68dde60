"""The container engine is stopped, or killed, and started again in the middle of runs.

What ran there is gone, through no fault of its image: it is tried again, and each message ends
once.
"""

import os
import random
import time

import pytest

from engine_server import EngineServer
from fault.fleet import Fleet
from stack import Stack

COUNT = int(os.environ.get("ABACO_TEST_FLEET", "12"))
"""So many in ``make test``; forty in ``make faults``."""


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_engine_restarted(engine: EngineServer, engine_stack: Stack, how: str) -> None:
    fleet = Fleet(engine_stack, f"engine-{how}", COUNT)
    fleet.launch(random.Random(how), seconds=15)
    time.sleep(3)  # some have ended by then, and some have not
    engine.stop() if how == "stop" else engine.kill()
    engine.start()
    fleet.check()
