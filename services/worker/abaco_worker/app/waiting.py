"""Waiting for what answers again, and for the end of what is not wanted any more."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from abaco_proto.errors import Unavailable

PAUSE_SECONDS = 0.5
AGAIN_SECONDS = 0.2

T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` gives, when what it needs answers again."""
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(PAUSE_SECONDS)


async def cancelled(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel tasks, and wait until they have ended, however they do.

    Once is not enough: an ``asyncio.wait_for`` of Python 3.11 whose answer comes in the same
    instant swallows the cancellation, and the task goes on (CPython #86296).
    """
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # was seen, or comes too late to matter


async def first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait for one of many."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancelled(*tasks)
