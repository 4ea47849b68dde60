"""The answer with followed output, sent until the execution ends or the client disconnects."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from abaco_api.domain import views
from abaco_api.domain.views import Row
from abaco_api.streams.domain import sse_frames
from abaco_api.streams.domain.transcript import Piece
from abaco_api.streams.output.output_reader import Emit
from abaco_api.streams.stream_writer import (
    EVENT_STREAM,
    STALLED,
    Stalled,
    StreamWriter,
    send_until_disconnected,
)

TEXT = "text/plain"
EVENTS = EVENT_STREAM
HEARTBEAT = sse_frames.comment("nothing new")


class LiveResponse(Response):
    """Plain text, or server-sent events. Its headers forbid proxies to buffer or store it."""

    def __init__(
        self,
        read: Callable[[Emit], Awaitable[Row]],
        closing: asyncio.Event,
        *,
        write_seconds: float,
        events: bool,
    ) -> None:
        """``read`` emits all output, and returns the row of the execution at its end.

        When ``closing`` is set the connection is aborted, which a client does not mistake for the
        end. A write may take ``write_seconds``.
        """
        super().__init__(None, media_type=EVENTS if events else TEXT)
        self._read = read
        self._closing = closing
        self._write_seconds = write_seconds
        self._events = events
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until either side ends the connection."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        writer = StreamWriter(send, self._write_seconds)
        serve = self._as_events if self._events else self._as_text
        await send_until_disconnected(scope, receive, serve(writer), self._closing.wait)

    async def _as_text(self, writer: StreamWriter) -> bool:
        async def emit(piece: Piece | None) -> None:
            if piece is not None:
                await writer.write(piece.text.encode())

        try:
            await self._read(emit)
        except Stalled:
            return False
        return await writer.end(seconds=self._write_seconds)

    async def _as_events(self, writer: StreamWriter) -> bool:
        output = sse_frames.OutputFrames()

        async def emit(piece: Piece | None) -> None:
            frame = HEARTBEAT if piece is None else output.frame(piece)
            if frame:
                await writer.write(frame)
                output.written()

        try:
            row = await self._read(emit)
            if last := output.finish():
                await writer.write(last)
        except Stalled:
            return await writer.end(sse_frames.dropped(STALLED, output.resume_after))
        return await writer.end(sse_frames.end(views.execution(row)), seconds=self._write_seconds)
