"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable

INTERVAL_SECONDS = 0.1


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask until the answer is yes or the time is over; return the last answer."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(INTERVAL_SECONDS)
    return True
