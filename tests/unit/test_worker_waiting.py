"""Cancelling tasks, and waiting until they end."""

import asyncio

from abaco_worker.app.waiting import cancel_and_wait
from deadlines import LIMIT_SECONDS


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    """Swallow one cancellation, like a ``wait_for`` whose result comes in the same instant."""
    swallowed = asyncio.Event()

    async def deaf_once() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.sleep(3600)

    task = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    async with asyncio.timeout(LIMIT_SECONDS):
        await cancel_and_wait(task, None)
    assert swallowed.is_set()
    assert task.cancelled()


async def test_an_error_on_the_way_out_is_nobodys() -> None:
    async def fails() -> None:
        raise ValueError("too late")

    await cancel_and_wait(asyncio.create_task(fails()))
