"""The snapshot manager: takes snapshots of the cluster, and loads a valid one at the start."""

import asyncio
import logging
from datetime import datetime

from abaco_jetstream.ports import EventLog, Snapshots
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_scheduler.app import snapshot_parts
from abaco_scheduler.domain import cluster_snapshot
from abaco_scheduler.domain.cluster import Cluster
from abaco_scheduler.domain.cluster_snapshot import ClusterSnapshot, event_digest

logger = logging.getLogger(__name__)

SNAPSHOT_NAME = "scheduler"

LOADED = "the scheduler begins with the snapshot of event %d; it reads only the events after it"
NOT_READ = (
    "snapshot not read: %s. The scheduler reads the whole log instead. If this is repeated, check"
    " that NATS is running and that the scheduler may read the stream KV_ABACO_SNAPSHOTS"
)
OTHER_VERSION = (
    "snapshot ignored: it was made by another version, or is damaged. The scheduler reads the whole"
    " log once; nothing to do"
)
FROM_THE_FUTURE = (
    "snapshot ignored: it was taken at %s, but the clock shows %s. The scheduler reads the whole"
    " log. Check the clock of this machine, and of the one that ran the scheduler before"
)
OTHER_LOG = (
    "snapshot ignored: event %d of this log is not the one it was made from. The scheduler reads"
    " the whole log. This is expected after a restore or with a new log; otherwise check that"
    " ABACO_NATS_URL names the right servers"
)
NOT_STORED = (
    "snapshot of %d bytes not stored: %s. The next start reads the log from the snapshot before it."
    " If this is repeated, check the free disk space of NATS and the limits of the stream"
    " KV_ABACO_SNAPSHOTS"
)

INTERVAL_EVENTS = 10_000
"""A snapshot is at most this many events old where actors are fewer; they take half a second to
fold."""


class SnapshotManager:
    """The snapshots of one scheduler. Several schedulers may replace one another's: all are valid.

    ``code_digest`` identifies the running code; a snapshot is due after ``interval_events``.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        log: EventLog,
        code_digest: str,
        *,
        interval_events: int = INTERVAL_EVENTS,
    ) -> None:
        """Read nothing yet."""
        self._snapshots = snapshots
        self._log = log
        self._code_digest = code_digest
        self._interval_events = interval_events
        self._last_sequence = 0
        self._to_store: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

    async def load(self, now: datetime) -> Cluster:
        """Return the cluster of the stored snapshot, or an empty one if there is no valid one."""
        try:
            snapshot = await self._valid_snapshot(now)
        except Unavailable as error:
            logger.warning(NOT_READ, error)
            return Cluster()
        if snapshot is None:
            return Cluster()
        self._last_sequence = snapshot.sequence
        logger.info(LOADED, snapshot.sequence)
        return cluster_snapshot.restore(snapshot)

    async def _valid_snapshot(self, now: datetime) -> ClusterSnapshot | None:
        """Return the stored snapshot if it is of this code and this log, and not from the future.

        Raises:
            Unavailable: NATS does not answer.
        """
        stored = await snapshot_parts.get(self._snapshots, SNAPSHOT_NAME)
        if stored is None:
            return None
        snapshot = cluster_snapshot.decode(stored, self._code_digest)
        if snapshot is None:
            logger.info(OTHER_VERSION)
            return None
        if snapshot.time > now:
            logger.warning(FROM_THE_FUTURE, snapshot.time.isoformat(), now.isoformat())
            return None
        recorded = await self._log.at(snapshot.sequence)
        if recorded is None or event_digest(recorded) != snapshot.event_digest:
            logger.warning(OTHER_LOG, snapshot.sequence)
            return None
        return snapshot

    def take_if_due(self, cluster: Cluster, last: Recorded, now: datetime) -> bool:
        """Take a snapshot if one is due; return whether it was taken. ``run`` stores it.

        ``last`` is the last event in the cluster. The cost grows with the number of actors, so
        with more than ``interval_events`` actors a snapshot is due after as many events as actors.
        """
        events = cluster.sequence - self._last_sequence
        if events < max(self._interval_events, len(cluster.actors)) or self._to_store.full():
            return False
        self._last_sequence = cluster.sequence
        digest = event_digest(last)
        encoded = cluster_snapshot.encode(cluster, self._code_digest, digest, now)
        self._to_store.put_nowait(encoded)
        return True

    async def run(self) -> None:
        """Store snapshots as they are taken, until cancelled. A failure is logged, not retried."""
        while True:
            encoded = await self._to_store.get()
            stored = await asyncio.to_thread(cluster_snapshot.compress, encoded)
            try:
                await snapshot_parts.put(self._snapshots, SNAPSHOT_NAME, stored)
            except Unavailable as error:
                logger.warning(NOT_STORED, len(stored), error)
