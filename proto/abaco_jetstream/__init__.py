"""The client library: the ports of the log, and their adapters over nats-py.

Only this package imports ``nats``. Open a :class:`Connection`, and give it to the adapters.
"""

from abaco_jetstream.archive import Archive
from abaco_jetstream.connection.nats_connection import Connection
from abaco_jetstream.event_log import JetStreamEventLog
from abaco_jetstream.heartbeats import NatsHeartbeats
from abaco_jetstream.output_log import JetStreamOutputLog
from abaco_jetstream.push_consumer import Message, MessageBatch
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
    "MessageBatch",
    "NatsHeartbeats",
]
