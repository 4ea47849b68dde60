"""The keeper: has a snapshot taken now and then, and finds out at the start whether one holds."""

import asyncio
import logging
from datetime import datetime

from abaco_proto.envelope import Recorded
from abaco_proto.errors import Unavailable
from abaco_proto.log import EventLog
from abaco_proto.snapshots import Snapshots
from abaco_scheduler import parts
from abaco_scheduler.cluster import Cluster
from abaco_scheduler.snapshot import Snapshot, packed, proof, restored, take, unpacked

logger = logging.getLogger(__name__)

NAME = "scheduler"
NOT_STORED = (
    "snapshot of %d bytes not stored: %s. The next start reads the log from the snapshot before it."
    " If this is repeated, check the free disk space of NATS and the limits of the stream"
    " KV_ABACO_SNAPSHOTS"
)
EVENTS = 10_000
"""A snapshot is behind the log by so many events at most; they take half a second to fold."""


class Keeper:
    """Snapshots of one scheduler. That another one puts its own does no harm: they say the same."""

    def __init__(
        self, snapshots: Snapshots, log: EventLog, code: str, *, events: int = EVENTS
    ) -> None:
        """Nothing is read yet. ``code`` says which code folds, ``events`` when it is time."""
        self._snapshots = snapshots
        self._log = log
        self._code = code
        self._events = events
        self._sequence = 0
        self._taken: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

    async def newest(self, now: datetime) -> Cluster:
        """The cluster of the snapshot, if there is one and it holds; else an empty one."""
        try:
            snapshot = await self._holding(now)
        except Unavailable as error:
            logger.warning("no snapshot: %s", error)
            return Cluster()
        if snapshot is None:
            return Cluster()
        self._sequence = snapshot.sequence
        logger.info("begins with the snapshot of event %d", snapshot.sequence)
        return restored(snapshot)

    async def _holding(self, now: datetime) -> Snapshot | None:
        """The snapshot, if this code made it, of this log, and by a clock that was not ahead."""
        stored = await parts.get(self._snapshots, NAME)
        if stored is None:
            return None
        snapshot = unpacked(stored, self._code)
        if snapshot is None:
            logger.info("the snapshot is not of this version, and is thrown away")
            return None
        if snapshot.time > now:
            logger.warning("the snapshot is of a later time than now, and is thrown away")
            return None
        there = await self._log.at(snapshot.sequence)
        if there is None or proof(there) != snapshot.proof:
            logger.warning("the snapshot is of another log, and is thrown away")
            return None
        return snapshot

    def look(self, cluster: Cluster, last: Recorded, now: datetime) -> bool:
        """Take a snapshot if it is time: ``last`` is the event that the cluster ends with.

        What it costs goes with the number of actors; so the more there are, the rarer it is.
        """
        behind = cluster.sequence - self._sequence
        if behind < max(self._events, len(cluster.desks)) or self._taken.full():
            return False
        self._sequence = cluster.sequence
        self._taken.put_nowait(take(cluster, self._code, proof(last), now))
        return True

    async def run(self) -> None:
        """Store what is taken, without end. One that could not be stored is not missed."""
        while True:
            stored = await asyncio.to_thread(packed, await self._taken.get())
            try:
                await parts.put(self._snapshots, NAME, stored)
            except Unavailable as error:
                logger.warning(NOT_STORED, len(stored), error)
