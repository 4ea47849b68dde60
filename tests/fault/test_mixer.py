"""Load of many kinds, and every process killed at random, again and again: nothing is lost.

Seconds and seed are ``ABACO_TEST_MIXER_SECONDS`` and ``ABACO_TEST_MIXER_SEED``, a number or
``random``; ``make faults`` mixes for ten minutes. What happened is shown as it happens.
"""

import os
import random

import pytest

from engine_server import EngineServer
from fault.mixer.mix import Mix, table
from fault.mixer.plan import draw
from stack import Stack

SECONDS = float(os.environ.get("ABACO_TEST_MIXER_SECONDS", "20"))
SEED = os.environ.get("ABACO_TEST_MIXER_SEED", "1")


async def test_mixer(
    engine: EngineServer, engine_stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(words: str) -> None:
        with capsys.disabled():
            print(f"mixer: {words}", flush=True)  # noqa: T201 - progress of a long test

    seed = random.SystemRandom().randrange(10**6) if SEED == "random" else int(SEED)
    plan = draw(seed, SECONDS, gap_seconds=4.0 if SECONDS > 60 else 1.6)
    say(f"seed {seed}, {SECONDS:.0f} s, {len(plan.plugs)} plugs")
    account = await Mix(engine_stack, engine, plan, say).run()
    say(table(plan, account))
    assert account.faults == []
