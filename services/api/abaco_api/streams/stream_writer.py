"""Answers that are sent as they come: one way for streams of events and for followed output.

A write waits until the connection takes it: that is the back pressure. A connection that takes
nothing for too long is cut, and so costs the others nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.types import Receive, Scope, Send

from abaco_api.http.wire_protocol import ABORT, CALL

EVENT_STREAM = "text/event-stream"
LAST_WORD_SECONDS = 1.0
CLOSE_SECONDS = 30.0
"""An answer that is complete, and that its client never reads, keeps its connection no longer."""

STALLED = "the connection took nothing for too long"


class Stalled(Exception):
    """The connection took nothing for too long."""


class StreamWriter:
    """The body of one answer, piece by piece; a piece may take ``write_seconds``."""

    def __init__(self, send: Send, write_seconds: float) -> None:
        self._send = send
        self._write_seconds = write_seconds
        self.written_at = 0.0

    async def write(self, body: bytes) -> None:
        """Send a piece.

        Raises:
            Stalled: the connection does not take it.
        """
        try:
            async with asyncio.timeout(self._write_seconds):
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
        except TimeoutError:
            raise Stalled from None
        self.written_at = asyncio.get_running_loop().time()

    async def end(self, body: bytes = b"", *, seconds: float = LAST_WORD_SECONDS) -> bool:
        """Send the last piece; whether the connection took it."""
        try:
            async with asyncio.timeout(seconds):
                await self._send({"type": "http.response.body", "body": body, "more_body": False})
        except TimeoutError:
            return False
        return True


async def send_until_gone(
    scope: Scope,
    receive: Receive,
    serve: Coroutine[Any, Any, bool],
    closing: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Serve until that is done, the client is gone, or ``closing`` returns.

    ``serve`` returns whether the answer is complete. One that is not is cut off, so that its
    client does not take it for the whole.
    """
    abort: Callable[[], None] = scope.get("extensions", {}).get(ABORT, {}).get(CALL, _nothing)
    serving = asyncio.ensure_future(serve)
    gone = asyncio.ensure_future(_gone(receive))
    tasks: set[asyncio.Future[Any]] = {serving, gone}
    if closing is not None:
        tasks.add(asyncio.ensure_future(closing()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if serving.done() and serving.result():
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, abort)
        elif not gone.done() and abort is not _nothing:
            abort()
            await gone
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _nothing() -> None:
    """There is no connection to cut."""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
