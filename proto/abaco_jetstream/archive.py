"""The stream of events as it is stored, headers and bytes: out of one server and into another."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from abaco_jetstream.connection import NATS_ERRORS, Connection, describe
from abaco_jetstream.follow import Message, Messages, follow
from abaco_proto import streams
from abaco_proto.errors import Unavailable

EXPECTED_PREFIX = "nats-expected-"
EXPECTED_LAST = "Nats-Expected-Last-Sequence"
SHORTEST_WINDOW_SECONDS = 0.1
PAUSE_SECONDS = 2 * SHORTEST_WINDOW_SECONDS
TRIES = 5
MOST_MESSAGES = 3000
"""At once, however long the log is. Large ones come fewer at a time: the server's flow control
bounds the bytes that are under way."""


class Archive:
    """Reads the log as a file would hold it, and writes it back, each message at its sequence."""

    def __init__(self, connection: Connection) -> None:
        """The streams behind an open connection."""
        self._connection = connection

    async def last(self, stream: streams.Stream = streams.EVENTS) -> int:
        """The sequence of the last message that a stream ever took; 0 when it took none."""
        try:
            info = await self._connection.jetstream.stream_info(stream.name)
        except NATS_ERRORS as error:
            raise Unavailable(f"the log (NATS) did not answer: {describe(error)}") from error
        return info.state.last_seq

    async def follow(self, *, after: int) -> AsyncGenerator[Messages, None]:
        """All messages behind ``after`` as they are stored, in order, without end."""
        stream, filters = streams.EVENTS.name, [*streams.EVENTS.subjects]
        follower = follow(self._connection, stream, filters, after=after, most=MOST_MESSAGES)
        async with aclosing(follower) as batches:
            async for batch in batches:
                yield batch

    async def read(self, *, until: int) -> AsyncGenerator[Sequence[Message], None]:
        """All messages up to ``until``, without the conditions under which they were appended."""
        async with aclosing(self.follow(after=0)) as batches:
            async for batch in batches:
                yield [_bare(message) for message in batch.items if message.sequence <= until]
                if batch.pending == 0 or batch.items[-1].sequence >= until:
                    return

    async def write(self, messages: Sequence[Message]) -> None:
        """Append messages, each at the very sequence it has.

        An id that comes twice within the stream's memory for duplicates is waited for; see
        :meth:`restoring`.

        Raises:
            Unavailable: no answer, or someone else appends, too.
        """
        left, tries = list(messages), 0
        while left:
            error = await self._publish(left)
            last = await self.last()
            rest = [message for message in left if message.sequence > last]
            tries = tries + 1 if len(rest) == len(left) else 0
            if tries == TRIES:
                raise Unavailable(f"the log (NATS) does not take event {rest[0].sequence}: {error}")
            if rest:
                await asyncio.sleep(PAUSE_SECONDS)
            left = rest

    async def restoring(self, *, begin: bool) -> None:
        """Begin or end: in between the log forgets ids at once, for they were checked already."""
        normal = streams.EVENTS.duplicate_window_seconds
        window = SHORTEST_WINDOW_SECONDS if begin else normal
        jetstream = self._connection.jetstream
        try:
            config = (await jetstream.stream_info(streams.EVENTS.name)).config
            await jetstream.update_stream(config.evolve(duplicate_window=window))
        except NATS_ERRORS as error:
            raise Unavailable(f"the log (NATS) refused: {describe(error)}") from error

    async def _publish(self, messages: Sequence[Message]) -> str:
        """Send all, then wait for all; what went wrong first, in words."""
        answers = await asyncio.gather(*map(self._append, messages), return_exceptions=True)
        return next((describe(one) for one in answers if isinstance(one, BaseException)), "")

    async def _append(self, message: Message) -> None:
        expected = {EXPECTED_LAST: str(message.sequence - 1)}
        headers = {**(message.headers or {}), **expected}
        await self._connection.request(message.subject, message.body, headers)


def _bare(message: Message) -> Message:
    headers = message.headers or {}
    kept = {k: v for k, v in headers.items() if not k.lower().startswith(EXPECTED_PREFIX)}
    return msgspec.structs.replace(message, headers=kept)
