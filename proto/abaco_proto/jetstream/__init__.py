"""The ports of ``log`` and ``snapshots`` on NATS JetStream. Only this package imports ``nats``.

Start at :class:`Connection`; the rest takes one.
"""

from abaco_proto.jetstream.archive import Archive
from abaco_proto.jetstream.connection import Connection
from abaco_proto.jetstream.event_log import JetStreamEventLog
from abaco_proto.jetstream.follow import Message, Messages
from abaco_proto.jetstream.heartbeats import NatsHeartbeats
from abaco_proto.jetstream.output_log import JetStreamOutputLog
from abaco_proto.jetstream.snapshots import JetStreamSnapshots
from abaco_proto.jetstream.work_queue import JetStreamWorkQueue

__all__ = [
    "Archive",
    "Connection",
    "JetStreamEventLog",
    "JetStreamOutputLog",
    "JetStreamSnapshots",
    "JetStreamWorkQueue",
    "Message",
    "Messages",
    "NatsHeartbeats",
]
