"""Follows a stream through an ephemeral push consumer, which is replaced after every fault.

The server numbers the messages it sends to a consumer (1, 2, 3, …), and sends a heartbeat when
there are none. A reader that receives every number, and something every second, has missed nothing.
After a gap, or without a heartbeat, it creates a new consumer that starts after the last message it
returned. The server's flow control bounds what is in flight. See docs/adr/0003.
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

from abaco_jetstream.connection.nats_connection import Connection
from abaco_jetstream.connection.nats_errors import NATS_ERRORS, describe
from abaco_proto.errors import Unavailable

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.0
PAUSE_SECONDS = 0.3
BATCH_MESSAGES = 1000


class Message(msgspec.Struct, frozen=True, array_like=True):
    """A message as it is stored in the stream."""

    sequence: int
    subject: str
    headers: Mapping[str, str] | None
    body: bytes


class MessageBatch(msgspec.Struct, frozen=True):
    """A batch of messages in order, and how many more were pending when the last one was sent."""

    items: Sequence[Message]
    pending: int


class ConsumerReset(Exception):
    """The consumer must be replaced; the message is the cause."""


async def follow(  # noqa: PLR0913 - options of a consumer
    connection: Connection,
    stream: str,
    filters: Sequence[str],
    *,
    after: int,
    since: datetime | None = None,
    headers_only: bool = False,
    max_messages: int = BATCH_MESSAGES,
) -> AsyncGenerator[MessageBatch, None]:
    """All messages after the sequence ``after``, each once and in order, without end.

    A batch has at most ``max_messages``. ``since`` leaves out messages that were stored before;
    with ``headers_only`` the bodies are empty.
    """
    cursor = after
    while True:
        start = _start(cursor, since if cursor == after else None)
        start.headers_only = headers_only or None
        consumer = _Consumer(connection, stream, filters, start, max_messages)
        try:
            await consumer.start()
            async for batch in consumer.batches():
                if batch.items:
                    cursor = batch.items[-1].sequence
                yield batch
        except (ConsumerReset, Unavailable, *NATS_ERRORS) as error:
            logger.debug("consumer of %s is replaced: %s", stream, describe(error))
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
        max_messages: int,
    ) -> None:
        self._connection = connection
        self._reconnects = connection.reconnects
        self._stream = stream
        self._filters = list(filters)
        self._start = start
        self._max_messages = max_messages
        self._seen = 0
        self._arrived: deque[Msg] = deque()
        self._wake = asyncio.Event()
        # Chosen here, so that a consumer is deleted even if its creation was not answered. Random,
        # because any client that knows the name could use the consumer.
        self._name = f"follower-{uuid4().hex}"
        self._pending_at_start = 0

    async def start(self) -> None:
        if not self._connection.connected:
            raise Unavailable("not connected")
        self._connection.wake_on_reconnect.add(self._wake)
        inbox = self._connection.client.new_inbox()
        self._subscription = await self._connection.client.subscribe(
            inbox, cb=self._on_message, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
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
        info = await self._connection.call(
            lambda: self._connection.jetstream.add_consumer(self._stream, config)
        )
        self._pending_at_start = (info.num_pending or 0) + info.delivered.consumer_seq  # type: ignore[union-attr]

    async def stop(self) -> None:
        self._connection.wake_on_reconnect.discard(self._wake)
        if self._connection.client.is_closed or not self._connection.connected:
            return
        try:
            if hasattr(self, "_subscription"):
                await self._subscription.unsubscribe()
            await self._connection.jetstream.delete_consumer(self._stream, self._name)
        except NATS_ERRORS as error:
            logger.debug("consumer not deleted: %s", describe(error))

    async def batches(self) -> AsyncGenerator[MessageBatch, None]:
        if self._pending_at_start == 0:
            yield MessageBatch([], 0)
        while True:
            await self._wait()
            batch = await self._drain()
            if batch.items:
                yield batch

    async def _on_message(self, message: Msg) -> None:
        self._arrived.append(message)
        self._wake.set()

    async def _wait(self) -> None:
        if self._arrived:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await self._wake.wait()
        except asyncio.TimeoutError:
            raise ConsumerReset("no heartbeat") from None
        if self._connection.reconnects != self._reconnects:
            raise ConsumerReset("reconnected")

    async def _drain(self) -> MessageBatch:
        items: list[Message] = []
        pending = 0
        while self._arrived and len(items) < self._max_messages:
            message = self._arrived.popleft()
            headers = message.headers
            if not message.data and headers is not None and "Status" in headers:
                await self._on_status(message.reply, headers)
                continue
            sequence, delivered, pending = _positions(message.reply)
            if delivered != self._seen + 1:
                raise ConsumerReset(f"expected delivery {self._seen + 1}, got {delivered}")
            self._seen = delivered
            items.append(Message(sequence, message.subject, headers, message.data))
        return MessageBatch(items, pending)

    async def _on_status(self, reply: str, headers: Mapping[str, str]) -> None:
        """Check a heartbeat's last delivery number; answer a flow control request."""
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != self._seen:
            raise ConsumerReset(f"last delivery was {last}, seen {self._seen}")
        reply = reply or headers.get("Nats-Consumer-Stalled", "")
        if reply:
            await self._connection.client.publish(reply)


def _start(after: int, since: datetime | None) -> ConsumerConfig:
    """The start of a consumer: after a sequence, or at a time if nothing was read yet."""
    if since is None or after:
        return ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after + 1
        )
    return ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since)


def _positions(reply: str) -> tuple[int, int, int]:
    """Stream sequence, delivery number and pending count, from a message's reply subject.

    ``$JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>``, or
    the longer form with domain and account in front of the stream (NATS ADR-15).
    """
    tokens = reply.split(".")
    at = 0 if len(tokens) == 9 else 2
    return int(tokens[5 + at]), int(tokens[6 + at]), int(tokens[8 + at])
