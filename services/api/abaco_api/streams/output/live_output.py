"""All readers of live output of a process, and what they share."""

import asyncio
from collections.abc import Awaitable, Callable

from abaco_api.domain.views import Row
from abaco_api.http.http_errors import TooMany
from abaco_api.streams.domain.output_offset import Place
from abaco_api.streams.output.output_reader import Emit, Reader, Sources
from abaco_api.streams.output.output_response import LiveResponse


class Live:
    """Every reader has a consumer of its own on the output stream: there is a most of them."""

    def __init__(self, sources: Sources, most: int, write_seconds: float = 10.0) -> None:
        """At most ``most`` readers at once; a write to one may take ``write_seconds``."""
        self._sources = sources
        self._write_seconds = write_seconds
        self._most = most
        self._closing = asyncio.Event()
        self.readers = 0

    def close(self) -> None:
        """Let all readers go: the process ends."""
        self._closing.set()

    def follow(self, row: Row, begin: Place, *, events: bool) -> LiveResponse:
        """The output of an execution from a place on, up to its end.

        Raises:
            TooMany: there is no room for one more reader.
        """
        if self.readers >= self._most:
            raise TooMany(f"{self.readers} readers follow output already, the most of this process")

        async def read(emit: Emit) -> Row:
            self.readers += 1
            try:
                return await Reader(self._sources, row, begin, emit).read()
            finally:
                self.readers -= 1

        return self._response(read, events=events)

    def nothing(self, row: Row, *, events: bool) -> LiveResponse:
        """The answer when the output is not shown any more."""

        async def read(_: Emit) -> Row:
            return row

        return self._response(read, events=events)

    def _response(self, read: Callable[[Emit], Awaitable[Row]], *, events: bool) -> LiveResponse:
        return LiveResponse(read, self._closing, write_seconds=self._write_seconds, events=events)
