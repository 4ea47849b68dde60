"""All readers of live output of a process."""

import asyncio
from collections.abc import Awaitable, Callable

from abaco_api.api_errors import TooMany
from abaco_api.domain.views import Row
from abaco_api.streams.domain.output_offset import OutputOffset
from abaco_api.streams.output.output_reader import Emit, OutputReader, OutputSources
from abaco_api.streams.output.output_response import LiveResponse


class LiveOutput:
    """Every reader has its own consumer on the output stream, so their number is limited."""

    def __init__(self, most: int, write_seconds: float = 10.0) -> None:
        """At most ``most`` readers at once; a write to one may take ``write_seconds``."""
        self._write_seconds = write_seconds
        self._most = most
        self._closing = asyncio.Event()
        self.readers = 0

    def close(self) -> None:
        """End all streams: the process stops."""
        self._closing.set()

    def follow(
        self, sources: OutputSources, row: Row, begin: OutputOffset, *, events: bool
    ) -> LiveResponse:
        """The output of a tenant's execution from an offset on, up to its end.

        Raises:
            TooMany: the process serves as many readers as it may.
        """
        if self.readers >= self._most:
            raise TooMany(f"{self.readers} readers follow output already, the most of this process")

        async def read(emit: Emit) -> Row:
            self.readers += 1
            try:
                return await OutputReader(sources, row, begin, emit).read()
            finally:
                self.readers -= 1

        return self._response(read, events=events)

    def empty(self, row: Row, *, events: bool) -> LiveResponse:
        """The answer when the output has expired."""

        async def read(_: Emit) -> Row:
            return row

        return self._response(read, events=events)

    def _response(self, read: Callable[[Emit], Awaitable[Row]], *, events: bool) -> LiveResponse:
        return LiveResponse(read, self._closing, write_seconds=self._write_seconds, events=events)
