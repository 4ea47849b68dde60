"""Following a stream: an ephemeral push consumer that is watched, and replaced when it falters.

Theory: the server numbers what it sends to a consumer (1, 2, 3, …) and sends a heartbeat when
there is nothing to send. So a reader that sees every number and hears something every second
has missed nothing; at the first gap or silence it starts a new consumer behind the last message
it passed on. The server's flow control stops it from sending more than the reader takes.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from uuid import uuid4

import msgspec
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from abaco_jetstream.connection import NATS_ERRORS, Connection, describe
from abaco_proto.errors import Unavailable

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.0
PAUSE_SECONDS = 0.3
BATCH_MESSAGES = 1000


class Message(msgspec.Struct, frozen=True, array_like=True):
    """A stored message as the stream has it."""

    sequence: int
    subject: str
    headers: Mapping[str, str] | None
    body: bytes


class Messages(msgspec.Struct, frozen=True):
    """Messages in order, and how many more waited behind the last."""

    items: Sequence[Message]
    pending: int


_Arrived = tuple[str, str, Mapping[str, str] | None, bytes]
"""Subject, reply subject, headers and body."""


class Faltered(Exception):
    """The consumer must be replaced; the text says why."""


async def follow(  # noqa: PLR0913 - what a consumer can be asked for
    connection: Connection,
    stream: str,
    filters: Sequence[str],
    *,
    after: int,
    since: datetime | None = None,
    headers_only: bool = False,
    most: int = BATCH_MESSAGES,
) -> AsyncGenerator[Messages, None]:
    """All messages behind ``after``, each once and in order, without end; ``most`` at once.

    With ``since`` only those that were stored then or later, with ``headers_only`` without bodies.
    """
    cursor = after
    while True:
        start = _start(cursor, since if cursor == after else None)
        start.headers_only = headers_only or None
        consumer = _Consumer(connection, stream, filters, start, most)
        try:
            await consumer.start()
            async for batch in consumer.batches():
                if batch.items:
                    cursor = batch.items[-1].sequence
                yield batch
        except (Faltered, Unavailable, *NATS_ERRORS) as error:
            logger.debug("follower of %s starts again: %s", stream, describe(error))
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            await consumer.stop()


class _Consumer:
    """One ephemeral consumer, from its creation to its first fault."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filters: Sequence[str],
        start: ConsumerConfig,
        most: int,
    ) -> None:
        self._connection = connection
        self._generation = connection.generation
        self._stream = stream
        self._filters = list(filters)
        self._start = start
        self._most = most
        self._seen = 0
        self._arrived: deque[_Arrived] = deque()
        self._wake = asyncio.Event()
        # Chosen here and not by the server: a consumer whose making is broken off must go, too.
        # Nobody else can guess it, and whoever knows it could take it over.
        self._name = f"follower-{uuid4().hex}"
        self._waiting_at_start = 0

    async def start(self) -> None:
        if not self._connection.connected:
            raise Unavailable("not connected")
        self._connection.waiting.add(self._wake)
        inbox = self._connection.client.new_inbox()
        self._subscription = await self._connection.client.subscribe(
            inbox, cb=self._on_message, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        self._connection.client.straight(self._subscription, self._take)
        config = self._start.evolve(
            name=self._name,
            deliver_subject=inbox,
            ack_policy=AckPolicy.NONE,
            max_deliver=1,
            flow_control=True,
            idle_heartbeat=HEARTBEAT_SECONDS,
            inactive_threshold=10.0,
            mem_storage=True,
            num_replicas=1,
            filter_subjects=self._filters if len(self._filters) > 1 else None,
            filter_subject=self._filters[0] if len(self._filters) == 1 else None,
        )
        info = await self._connection.ask(
            lambda: self._connection.jetstream.add_consumer(self._stream, config)
        )
        self._waiting_at_start = (info.num_pending or 0) + info.delivered.consumer_seq  # type: ignore[union-attr]

    async def stop(self) -> None:
        self._connection.waiting.discard(self._wake)
        if self._connection.client.is_closed or not self._connection.connected:
            return
        try:
            if hasattr(self, "_subscription"):
                await self._subscription.unsubscribe()
            await self._connection.jetstream.delete_consumer(self._stream, self._name)
        except NATS_ERRORS as error:
            logger.debug("consumer not deleted: %s", describe(error))

    async def batches(self) -> AsyncGenerator[Messages, None]:
        if self._waiting_at_start == 0:
            yield Messages([], 0)
        while True:
            await self._arrival()
            batch = await self._drain()
            if batch.items:
                yield batch

    async def _on_message(self, message: Msg) -> None:
        self._take(message.subject, message.reply, message.headers, message.data)

    def _take(
        self, subject: str, reply: str, headers: Mapping[str, str] | None, body: bytes
    ) -> None:
        self._arrived.append((subject, reply, headers, body))
        self._wake.set()

    async def _arrival(self) -> None:
        if self._arrived:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await self._wake.wait()
        except asyncio.TimeoutError:
            raise Faltered("no heartbeat") from None
        if self._connection.generation != self._generation:
            raise Faltered("reconnected")

    async def _drain(self) -> Messages:
        items: list[Message] = []
        pending = 0
        while self._arrived and len(items) < self._most:
            subject, reply, headers, body = self._arrived.popleft()
            if not body and headers is not None and "Status" in headers:
                await self._on_status(reply, headers)
                continue
            sequence, delivered, pending = _places(reply)
            if delivered != self._seen + 1:
                raise Faltered(f"expected delivery {self._seen + 1}, got {delivered}")
            self._seen = delivered
            items.append(Message(sequence, subject, headers, body))
        return Messages(items, pending)

    async def _on_status(self, reply: str, headers: Mapping[str, str]) -> None:
        """A heartbeat tells the last delivery; a flow control request waits for an answer."""
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != self._seen:
            raise Faltered(f"last delivery was {last}, seen {self._seen}")
        reply = reply or headers.get("Nats-Consumer-Stalled", "")
        if reply:
            await self._connection.client.publish(reply)


def _start(after: int, since: datetime | None) -> ConsumerConfig:
    """Where a consumer starts: behind a sequence, or at a time if that is later."""
    if since is None or after:
        return ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1
        )
    return ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since)


def _places(reply: str) -> tuple[int, int, int]:
    """Stream sequence, delivery number and pending count, from a message's reply subject.

    ``$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>``, or
    the longer form with domain and account in front of the stream (NATS ADR-15).
    """
    tokens = reply.split(".")
    at = 0 if len(tokens) == 9 else 2
    return int(tokens[5 + at]), int(tokens[6 + at]), int(tokens[8 + at])
