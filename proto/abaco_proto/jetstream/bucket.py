"""The bucket of idempotency keys: a stream that keeps the last message of each subject."""

from abaco_proto import streams
from abaco_proto.bucket import Cell
from abaco_proto.jetstream.connection import Connection
from abaco_proto.jetstream.event_log import EXPECTED_SEQUENCE
from abaco_proto.jetstream.stored import stored
from abaco_proto.subjects import bucket_subject

AGE = "Nats-TTL"


class JetStreamBucket:
    """Implements :class:`abaco_proto.bucket.Bucket`. A revision is a sequence of the stream."""

    def __init__(self, connection: Connection) -> None:
        """The bucket behind an open (or opening) connection."""
        self._connection = connection

    async def get(self, key: str) -> Cell | None:
        """See :meth:`abaco_proto.bucket.Bucket.get`."""
        found = await stored(self._connection, streams.KEYS.name, subject=bucket_subject(key))
        if found is None:
            return None
        assert found.seq is not None
        return Cell(found.seq, found.data or b"")

    async def put(self, key: str, value: bytes, *, revision: int, seconds: int) -> int:
        """See :meth:`abaco_proto.bucket.Bucket.put`."""
        headers = {EXPECTED_SEQUENCE: str(revision), AGE: f"{seconds}s"}
        answer = await self._connection.request(bucket_subject(key), value, headers)
        return int(answer["seq"])
