"""Reads and writes the stream of events as it is stored: for exports, imports and audits."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from abaco_jetstream.connection.nats_connection import Connection
from abaco_jetstream.connection.nats_errors import NATS_ERRORS, describe
from abaco_jetstream.push_consumer import Message, MessageBatch, follow
from abaco_proto import streams
from abaco_proto.errors import Unavailable

EXPECTED_PREFIX = "nats-expected-"
EXPECTED_LAST = "Nats-Expected-Last-Sequence"
SHORTEST_WINDOW_SECONDS = 0.1
PAUSE_SECONDS = 2 * SHORTEST_WINDOW_SECONDS
MAX_ATTEMPTS = 5
MAX_MESSAGES = 3000
"""Per batch. Large messages come in smaller batches, as the server's flow control bounds the bytes
in flight."""


class Archive:
    """Reads messages with their headers, and writes them back at the sequences they had."""

    def __init__(self, connection: Connection) -> None:
        """The streams behind an open connection."""
        self._connection = connection

    async def last(self, stream: streams.Stream = streams.EVENTS) -> int:
        """The sequence of the last message that a stream ever stored; 0 if there was none."""
        try:
            info = await self._connection.jetstream.stream_info(stream.name)
        except NATS_ERRORS as error:
            raise Unavailable(f"the log (NATS) did not answer: {describe(error)}") from error
        return info.state.last_seq

    async def follow(self, *, after: int) -> AsyncGenerator[MessageBatch, None]:
        """All messages after the sequence ``after``, in order, without end."""
        stream, filters = streams.EVENTS.name, [*streams.EVENTS.subjects]
        follower = follow(self._connection, stream, filters, after=after, max_messages=MAX_MESSAGES)
        async with aclosing(follower) as batches:
            async for batch in batches:
                yield batch

    async def read(self, *, until: int) -> AsyncGenerator[Sequence[Message], None]:
        """All messages up to ``until``, without the headers of their append conditions."""
        async with aclosing(self.follow(after=0)) as batches:
            async for batch in batches:
                yield [
                    _without_conditions(message)
                    for message in batch.items
                    if message.sequence <= until
                ]
                if batch.pending == 0 or batch.items[-1].sequence >= until:
                    return

    async def write(self, messages: Sequence[Message]) -> None:
        """Append messages, each at the sequence that it has.

        If an id occurs twice within the stream's duplicate window, this waits for the window to
        pass; see :meth:`restoring`.

        Raises:
            Unavailable: no answer, or another writer appends as well.
        """
        left, attempts = list(messages), 0
        while left:
            error = await self._publish(left)
            last = await self.last()
            rest = [message for message in left if message.sequence > last]
            attempts = attempts + 1 if len(rest) == len(left) else 0
            if attempts == MAX_ATTEMPTS:
                raise Unavailable(
                    f"the log (NATS) does not accept event {rest[0].sequence}: {error}"
                )
            if rest:
                await asyncio.sleep(PAUSE_SECONDS)
            left = rest

    async def restoring(self, *, begin: bool) -> None:
        """Begin or end an import, during which the duplicate window is as short as possible.

        The ids of the imported events were checked when they were first appended.
        """
        normal = streams.EVENTS.duplicate_window_seconds
        window = SHORTEST_WINDOW_SECONDS if begin else normal
        jetstream = self._connection.jetstream
        try:
            config = (await jetstream.stream_info(streams.EVENTS.name)).config
            await jetstream.update_stream(config.evolve(duplicate_window=window))
        except NATS_ERRORS as error:
            raise Unavailable(f"the log (NATS) refused: {describe(error)}") from error

    async def _publish(self, messages: Sequence[Message]) -> str:
        """Send all, then wait for all; return the text of the first error."""
        replies = await asyncio.gather(*map(self._append, messages), return_exceptions=True)
        return next((describe(one) for one in replies if isinstance(one, BaseException)), "")

    async def _append(self, message: Message) -> None:
        expected = {EXPECTED_LAST: str(message.sequence - 1)}
        headers = {**(message.headers or {}), **expected}
        await self._connection.request(message.subject, message.body, headers)


def _without_conditions(message: Message) -> Message:
    headers = message.headers or {}
    kept = {k: v for k, v in headers.items() if not k.lower().startswith(EXPECTED_PREFIX)}
    return msgspec.structs.replace(message, headers=kept)
