"""The work queue of a host: a durable pull consumer on the events addressed to it.

A pull requests messages, and heartbeats while there are none. Without a heartbeat for a few seconds
the pull is lost, whatever the cause, and another one is sent; messages of the old pull still arrive
in the same inbox. A message that is not acknowledged or reported as in progress within
``ACK_WAIT_SECONDS`` is delivered again.

Any client that knows the consumer's name could receive its messages. So the name ends in a random
part, and the host finds its own consumer by the part before it (see ``permissions``).
"""

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable

import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from abaco_jetstream.connection.nats_connection import Connection
from abaco_jetstream.connection.nats_errors import NATS_ERRORS, describe
from abaco_jetstream.ports import WORKING_SECONDS
from abaco_proto import streams
from abaco_proto.envelope import Recorded, from_message
from abaco_proto.errors import Unavailable
from abaco_proto.names import host_work_filter

logger = logging.getLogger(__name__)

ACK_WAIT_SECONDS = 3 * WORKING_SECONDS
"""Two progress reports may be lost before a message is delivered again."""

NAMES = f"$JS.API.CONSUMER.NAMES.{streams.EVENTS.name}"
RANDOM_BYTES = 16

PULL_MESSAGES = 256
PULL_SECONDS = 30.0
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.0
PAUSE_SECONDS = 0.3

NANOSECONDS = 1_000_000_000


class JetStreamDelivery:
    """Implements :class:`abaco_jetstream.ports.Delivery`."""

    def __init__(self, message: Msg) -> None:
        """A message of the durable consumer."""
        self._message = message
        sequence = message.metadata.sequence.stream
        self._recorded = from_message(sequence, message.subject, message.headers, message.data)
        self._deliveries = message.metadata.num_delivered

    @property
    def recorded(self) -> Recorded:
        """The event."""
        return self._recorded

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before."""
        return self._deliveries > 1

    async def done(self) -> None:
        """Acknowledge it. If that is lost, it is delivered again, and its work is found done."""
        await self._acknowledge(self._message.ack())

    async def working(self) -> None:
        """Report that it is in progress."""
        await self._acknowledge(self._message.in_progress())

    async def retry(self, delay_seconds: float) -> None:
        """Return it, to be delivered again after a delay."""
        await self._acknowledge(self._message.nak(delay_seconds))

    @staticmethod
    async def _acknowledge(sending: Awaitable[None]) -> None:
        try:
            await sending
        except NATS_ERRORS as error:
            logger.debug("acknowledgement not sent: %s", describe(error))


class JetStreamWorkQueue:
    """Implements :class:`abaco_jetstream.ports.WorkQueue`."""

    def __init__(self, connection: Connection, host_id: str) -> None:
        """The work of one host."""
        self._connection = connection
        self._host_id = host_id
        self._durable = ""
        self._arrived: deque[Msg] = deque()
        self._wake = asyncio.Event()

    async def deliveries(self) -> AsyncGenerator[JetStreamDelivery, None]:
        """See :meth:`abaco_jetstream.ports.WorkQueue.deliveries`."""
        self._connection.wake_on_reconnect.add(self._wake)
        inbox = await self._subscribe()
        while True:
            try:
                await self._ensure_consumer()
                reconnects = self._connection.reconnects
                while self._connection.reconnects == reconnects:
                    await self._pull(inbox)
                    async for message in self._until_pull_ends():
                        yield JetStreamDelivery(message)
            except (Unavailable, *NATS_ERRORS) as error:
                logger.debug("work queue is started again: %s", describe(error))
                await asyncio.sleep(PAUSE_SECONDS)

    async def _subscribe(self) -> str:
        inbox = self._connection.client.new_inbox()
        await self._connection.client.subscribe(
            inbox, cb=self._on_message, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        return inbox

    async def _ensure_consumer(self) -> None:
        self._durable = self._durable or await self._consumer_name()
        await self._connection.call(self._create_consumer)

    async def _create_consumer(self) -> None:
        """Create it if it does not exist. It has as many replicas as its stream."""
        jetstream = self._connection.jetstream
        try:
            await jetstream.consumer_info(streams.EVENTS.name, self._durable)
        except nats.js.errors.NotFoundError:
            await jetstream.add_consumer(
                streams.EVENTS.name,
                ConsumerConfig(
                    durable_name=self._durable,
                    filter_subject=host_work_filter(self._host_id),
                    deliver_policy=DeliverPolicy.ALL,
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=ACK_WAIT_SECONDS,
                    max_ack_pending=10_000,
                ),
            )

    async def _consumer_name(self) -> str:
        """The name of this host's consumer on the server, or a new name if there is none."""
        prefix, offset = f"host-{self._host_id}_", 0
        while True:
            page = await self._connection.request(NAMES, json.dumps({"offset": offset}).encode())
            names: list[str] = page["consumers"] or []
            for name in names:
                if name.startswith(prefix):
                    return name
            offset += len(names)
            if not names or offset >= page["total"]:
                return prefix + secrets.token_hex(RANDOM_BYTES)

    async def _pull(self, inbox: str) -> None:
        request = {
            "batch": PULL_MESSAGES,
            "expires": int(PULL_SECONDS * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * NANOSECONDS),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{streams.EVENTS.name}.{self._durable}"
        await self._connection.client.publish(subject, json.dumps(request).encode(), inbox)

    async def _on_message(self, message: Msg) -> None:
        self._arrived.append(message)
        self._wake.set()

    async def _until_pull_ends(self) -> AsyncGenerator[Msg, None]:
        left, reconnects = PULL_MESSAGES, self._connection.reconnects
        while self._connection.reconnects == reconnects:
            while self._arrived:
                message = self._arrived.popleft()
                status = (message.headers or {}).get("Status")
                if message.data or status is None:
                    left -= 1
                    yield message
                    if left == 0:  # nothing follows, not even a heartbeat
                        return
                elif status != "100":  # 404, 408, 409, 503: this pull has ended
                    await asyncio.sleep(0 if status == "408" else PAUSE_SECONDS)
                    return
            self._wake.clear()
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._wake.wait()
            except asyncio.TimeoutError:
                # The consumer may be gone, or this server may not reach it: look it up again.
                raise Unavailable("no heartbeat") from None
