"""The ports of ``log`` and ``snapshots`` on NATS JetStream. Only this package imports ``nats``.

Start at :class:`Connection`; the rest takes one.
"""

from abaco_jetstream.archive import Archive
from abaco_jetstream.connection import Connection
from abaco_jetstream.event_log import JetStreamEventLog
from abaco_jetstream.follow import Message, Messages
from abaco_jetstream.heartbeats import NatsHeartbeats
from abaco_jetstream.output_log import JetStreamOutputLog
from abaco_jetstream.snapshots import JetStreamSnapshots
from abaco_jetstream.work_queue import JetStreamWorkQueue

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
