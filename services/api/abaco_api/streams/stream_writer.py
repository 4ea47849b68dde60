"""The one writer of streamed answers: of events, of followed output, and of long pages.

A write waits until the connection accepts it: that is the back pressure. A connection that accepts
nothing for too long is closed, so it costs the others nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.types import Receive, Scope, Send

from abaco_api.http.wire_protocol import ABORT, CALL

EVENT_STREAM = "text/event-stream"
LAST_FRAME_SECONDS = 1.0
CLOSE_SECONDS = 30.0
"""How long a complete answer that its client does not read keeps its connection."""

STALLED = "the connection took nothing for too long"


class Stalled(Exception):
    """The connection accepted nothing for too long."""


class StreamWriter:
    """The body of one answer, piece by piece; a piece may take ``write_seconds``."""

    def __init__(self, send: Send, write_seconds: float) -> None:
        self._send = send
        self._write_seconds = write_seconds
        self.written_at = 0.0

    async def write(self, body: bytes) -> None:
        """Send a piece.

        Raises:
            Stalled: the connection does not accept it.
        """
        try:
            async with asyncio.timeout(self._write_seconds):
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
        except TimeoutError:
            raise Stalled from None
        self.written_at = asyncio.get_running_loop().time()

    async def end(self, body: bytes = b"", *, seconds: float = LAST_FRAME_SECONDS) -> bool:
        """Send the last piece; return whether the connection accepted it."""
        try:
            async with asyncio.timeout(seconds):
                await self._send({"type": "http.response.body", "body": body, "more_body": False})
        except TimeoutError:
            return False
        return True


async def send_until_disconnected(
    scope: Scope,
    receive: Receive,
    serve: Coroutine[Any, Any, bool],
    closing: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Run ``serve`` until it ends, the client disconnects, or ``closing`` returns.

    ``serve`` returns whether the answer is complete. If it is not, the connection is aborted, so
    that the client does not mistake the part for the whole.
    """
    abort: Callable[[], None] = scope.get("extensions", {}).get(ABORT, {}).get(CALL, _no_abort)
    serving = asyncio.ensure_future(serve)
    disconnected = asyncio.ensure_future(_disconnected(receive))
    tasks: set[asyncio.Future[Any]] = {serving, disconnected}
    if closing is not None:
        tasks.add(asyncio.ensure_future(closing()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if serving.done() and serving.result():
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, abort)
        elif not disconnected.done() and abort is not _no_abort:
            abort()
            await disconnected
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _no_abort() -> None:
    """The server offers no way to abort a connection."""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
