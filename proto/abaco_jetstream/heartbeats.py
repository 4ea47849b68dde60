"""Heartbeats on plain NATS subjects. They are not stored: one sent without a subscriber is lost."""

from collections.abc import AsyncGenerator

import msgspec

from abaco_jetstream.connection.nats_connection import Connection
from abaco_jetstream.connection.nats_errors import NATS_ERRORS, describe
from abaco_proto.envelope import DECODE_ERRORS
from abaco_proto.errors import Unavailable
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.names import heartbeat_subject, heartbeats_filter

_decoder = msgspec.json.Decoder(Heartbeat)


class NatsHeartbeats:
    """Implements :class:`abaco_jetstream.ports.Heartbeats`."""

    def __init__(self, connection: Connection) -> None:
        """Send and receive over an open connection."""
        self._connection = connection

    async def send(self, heartbeat: Heartbeat) -> None:
        """See :meth:`abaco_jetstream.ports.Heartbeats.send`."""
        body = msgspec.json.encode(heartbeat)
        try:
            await self._connection.client.publish(heartbeat_subject(heartbeat.host_id), body)
        except NATS_ERRORS as error:
            raise Unavailable(describe(error)) from error

    async def listen(self) -> AsyncGenerator[Heartbeat, None]:
        """See :meth:`abaco_jetstream.ports.Heartbeats.listen`."""
        subscription = await self._connection.client.subscribe(heartbeats_filter())
        async for message in subscription.messages:
            heartbeat = heartbeat_in(message.data)
            if heartbeat is not None:
                yield heartbeat


def heartbeat_in(raw: bytes) -> Heartbeat | None:
    """The heartbeat in a message; None if it cannot be decoded."""
    try:
        return _decoder.decode(raw)
    except DECODE_ERRORS:
        return None
