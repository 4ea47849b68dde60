"""Polls a condition, with a deadline."""

import time
from collections.abc import Callable

INTERVAL_SECONDS = 0.1


def poll_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until the condition holds or the time is over; return the last result."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(INTERVAL_SECONDS)
    return True
