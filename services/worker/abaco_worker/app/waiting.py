"""Retry a call until the log is available; cancel tasks and wait until they end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from abaco_jetstream.retry import Outage, every, retry_until_available

LOG_BACKOFF = every(0.5)
RECANCEL_SECONDS = 0.2

T = TypeVar("T")

_LOG_OUTAGE = Outage("the log (NATS)", level=logging.DEBUG)
"""The connection warns of the outage."""


async def retry_log(read: Callable[[], Awaitable[T]]) -> T:
    """Return the result of ``read``; while the log is unavailable, call it again."""
    return await retry_until_available(read, _LOG_OUTAGE, backoff=LOG_BACKOFF)


async def cancel_and_wait(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel tasks, and wait until they have ended, with whatever result.

    One cancellation is not enough. In Python 3.11, ``asyncio.wait_for`` swallows a cancellation if
    its result comes in the same instant, and the task continues (CPython #86296).
    """
    pending = {task for task in tasks if task is not None}
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=RECANCEL_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # retrieved, so that asyncio does not warn


async def wait_for_first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of the coroutines ends, and cancel the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(*tasks)
