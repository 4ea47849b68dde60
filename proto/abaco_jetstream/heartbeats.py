"""Heartbeats on plain NATS subjects: whoever does not listen misses them, and that is fine."""

from collections.abc import AsyncGenerator

import msgspec

from abaco_jetstream.connection import NATS_ERRORS, Connection, describe
from abaco_proto.codec import UNREADABLE
from abaco_proto.errors import Unavailable
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.subjects import heartbeat_subject, heartbeats_filter

_decoder = msgspec.json.Decoder(Heartbeat)


class NatsHeartbeats:
    """Implements :class:`abaco_jetstream.ports.Heartbeats`."""

    def __init__(self, connection: Connection) -> None:
        """Heartbeats over an open connection."""
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
    """The heartbeat in a message; None when it is none."""
    try:
        return _decoder.decode(raw)
    except UNREADABLE:
        return None
