"""How long tests wait, in one place: on a busy machine everything takes longer, and is right.

What must happen is waited for with :data:`LIMIT_SECONDS`, however soon it should happen: who waits
for a condition loses no time when it holds. Where the point is that something happens soon,
:func:`prompt` says how soon on a machine that does nothing else.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT_SECONDS = 120.0 * float(os.environ.get("TEST_TIMEOUT_FACTOR", "1"))
"""For what takes a second or ten on a quiet machine; the factor is for an emulated one."""

SLACK = 4.0
"""A machine four times as slow as ours is quick enough."""

WORK = range(200_000)


@contextmanager
def prompt(seconds: float) -> Iterator[None]:
    """What is done in here takes ``seconds`` at most on a machine that does nothing else."""
    begun = time.monotonic()
    yield
    took = time.monotonic() - begun
    limit = SLACK * seconds
    if took >= limit:
        limit *= slowness()
    assert took < limit, f"took {took:.1f} s, and {limit:.1f} s would have been prompt"


def slowness() -> float:
    """How many times longer than its processor time a piece of work takes now; at least 1."""
    begun, used = time.monotonic(), time.process_time()
    for _ in range(10):
        sum(WORK)
    return max(1.0, (time.monotonic() - begun) / max(time.process_time() - used, 0.001))
