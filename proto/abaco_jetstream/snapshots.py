"""Snapshots in a stream that keeps the last message of each subject."""

from abaco_jetstream.connection.nats_connection import Connection
from abaco_jetstream.stored_message import stored_message
from abaco_proto import streams
from abaco_proto.names import snapshot_subject


class JetStreamSnapshots:
    """Implements :class:`abaco_jetstream.ports.Snapshots`."""

    def __init__(self, connection: Connection) -> None:
        """The snapshots behind an open connection."""
        self._connection = connection

    async def get(self, name: str) -> bytes | None:
        """See :meth:`abaco_jetstream.ports.Snapshots.get`. Any replica may answer."""
        subject = snapshot_subject(name)
        found = await stored_message(
            self._connection, streams.SNAPSHOTS.name, subject=subject, direct=True
        )
        return None if found is None else found.data or b""

    async def put(self, name: str, value: bytes) -> None:
        """See :meth:`abaco_jetstream.ports.Snapshots.put`."""
        await self._connection.request(snapshot_subject(name), value)
