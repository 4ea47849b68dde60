"""The answer to a reader: sent as it comes, until the execution ends or the reader goes away."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from abaco_api import views
from abaco_api.live import frames
from abaco_api.live.reader import Emit
from abaco_api.live.transcript import Piece
from abaco_api.views import Row

TEXT = "text/plain"
EVENTS = "text/event-stream"

WRITE_SECONDS = 60.0
"""Who takes nothing for this long is let go."""


class LiveResponse(Response):
    """Plain text, or server-sent events. Nothing on the way may hold it back."""

    def __init__(
        self, read: Callable[[Emit], Awaitable[Row]], closing: asyncio.Event, *, events: bool
    ) -> None:
        """``read`` tells all output to what it is given, and returns the row of the end.

        When ``closing`` is set the connection is cut: to the reader that is not the end.
        """
        super().__init__(None, media_type=EVENTS if events else TEXT)
        self._read = read
        self._closing = closing
        self._events = events
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send until either side is done."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.create_task(self._send_all(send))
        going = asyncio.create_task(_gone(receive))
        closing = asyncio.create_task(self._closing.wait())
        tasks = {sending, going, closing}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Send) -> None:
        async def write(body: bytes, *, more: bool = True) -> None:
            async with asyncio.timeout(WRITE_SECONDS):
                await send({"type": "http.response.body", "body": body, "more_body": more})

        async def emit(piece: Piece | None) -> None:
            if self._events:
                await write(frames.HEARTBEAT if piece is None else frames.output(piece))
            elif piece is not None:
                await write(piece.text.encode())

        row = await self._read(emit)
        await write(frames.end(views.execution(row)) if self._events else b"", more=False)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
