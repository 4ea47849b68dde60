"""Waiting for what answers again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from abaco_proto.errors import Unavailable

PAUSE_SECONDS = 0.5

T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` gives, when what it needs answers again."""
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(PAUSE_SECONDS)
