"""A host's work: one durable pull consumer on everything addressed to it.

Theory: a pull asks for messages and for heartbeats while there are none. Silence for longer than
a few heartbeats means that the pull is gone, whatever the reason, and another is sent; messages
of the older one still arrive in the same inbox. What is not settled within ``ACK_WAIT_SECONDS``,
and not said to be worked on, is handed out again.

The consumer's name is its key: whoever knows it could take its messages or change it. So it ends in
a random part, and the host finds its own again by the part before (see ``permissions``).
"""

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator

import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from abaco_jetstream.connection import NATS_ERRORS, Connection, describe
from abaco_jetstream.ports import WORKING_SECONDS
from abaco_proto import streams
from abaco_proto.envelope import Recorded, from_message
from abaco_proto.errors import Unavailable
from abaco_proto.subjects import host_work_filter

logger = logging.getLogger(__name__)

ACK_WAIT_SECONDS = 3 * WORKING_SECONDS
"""Two reports may go missing before what is worked on is handed out again."""

NAMES = f"$JS.API.CONSUMER.NAMES.{streams.EVENTS.name}"
RANDOM_BYTES = 16

PULL_MESSAGES = 256
PULL_SECONDS = 30.0
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.0
PAUSE_SECONDS = 0.3

_BILLION = 1_000_000_000


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
        """Whether it was handed out before."""
        return self._deliveries > 1

    async def done(self) -> None:
        """Settle it. If the word is lost it comes again, and its work is found done."""
        await self._say(b"+ACK")

    async def working(self) -> None:
        """Say that it is still being worked on."""
        await self._say(b"+WPI")

    async def retry(self, delay_seconds: float) -> None:
        """Give it back, to come again after a while."""
        delay = json.dumps({"delay": int(delay_seconds * _BILLION)})
        await self._say(b"-NAK " + delay.encode())

    async def _say(self, word: bytes) -> None:
        try:
            await self._message._client.publish(self._message.reply, word)  # noqa: SLF001
        except NATS_ERRORS as error:
            logger.debug("%s not said: %s", word, describe(error))


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
        self._connection.waiting.add(self._wake)
        inbox = await self._subscribe()
        while True:
            try:
                await self._ensure_consumer()
                generation = self._connection.generation
                while self._connection.generation == generation:
                    await self._pull(inbox)
                    async for message in self._until_pull_ends():
                        yield JetStreamDelivery(message)
            except (Unavailable, *NATS_ERRORS) as error:
                logger.debug("work queue starts again: %s", describe(error))
                await asyncio.sleep(PAUSE_SECONDS)

    async def _subscribe(self) -> str:
        inbox = self._connection.client.new_inbox()
        await self._connection.client.subscribe(
            inbox, cb=self._on_message, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        return inbox

    async def _ensure_consumer(self) -> None:
        self._durable = self._durable or await self._name()
        await self._connection.ask(self._make_consumer)

    async def _make_consumer(self) -> None:
        """Make it where it is missing. It has as many replicas as its stream."""
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

    async def _name(self) -> str:
        """The consumer's name as the server has it, or a new one."""
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
            "expires": int(PULL_SECONDS * _BILLION),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * _BILLION),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{streams.EVENTS.name}.{self._durable}"
        await self._connection.client.publish(subject, json.dumps(request).encode(), inbox)

    async def _on_message(self, message: Msg) -> None:
        self._arrived.append(message)
        self._wake.set()

    async def _until_pull_ends(self) -> AsyncGenerator[Msg, None]:
        left, generation = PULL_MESSAGES, self._connection.generation
        while left > 0 and self._connection.generation == generation:
            while self._arrived:
                message = self._arrived.popleft()
                status = (message.headers or {}).get("Status")
                if message.data or status is None:
                    left -= 1
                    yield message
                elif status != "100":  # 404, 408, 409, 503: this pull is over
                    await asyncio.sleep(0 if status == "408" else PAUSE_SECONDS)
                    return
            self._wake.clear()
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._wake.wait()
            except asyncio.TimeoutError:
                # Is the consumer there at all, and can this server reach it?
                raise Unavailable("no heartbeat") from None
