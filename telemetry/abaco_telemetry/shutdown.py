"""Shut a process down at a signal, within a time limit whatever its tasks do.

A process may be killed at any instant, so nothing is lost if its shutdown is cut off.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

LIMIT_SECONDS = 10.0


def on_signal(stop: Callable[[], object]) -> None:
    """Call ``stop`` at each SIGTERM or SIGINT; end the process if it has not ended in time.

    ``stop`` runs in the event loop that is running now. One cancellation is not always enough: in
    Python 3.11, ``asyncio.wait_for`` swallows it if its result comes in the same instant (CPython
    #86296), and a thread that waits for a slow server delays the end of the interpreter.
    """
    loop = asyncio.get_running_loop()

    def shut_down() -> None:
        stop()
        limit = threading.Timer(LIMIT_SECONDS, _exit_now, (loop,))
        limit.daemon = True
        limit.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shut_down)


def _exit_now(loop: asyncio.AbstractEventLoop) -> None:
    try:
        tasks = asyncio.all_tasks(loop)
    except RuntimeError:  # they change meanwhile
        tasks = set()
    waiting = sorted(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    logger.error(
        "the process ends now, because it did not shut down within %g s. It waited for: %s",
        LIMIT_SECONDS,
        ", ".join(waiting) or "a thread",
    )
    logging.shutdown()
    os._exit(1)
