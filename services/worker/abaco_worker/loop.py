"""The shell: takes what is addressed to this host, and gives each piece to its seat."""

import asyncio
import logging
from contextlib import aclosing

from abaco_proto import events as ev
from abaco_proto.errors import Unavailable
from abaco_proto.log import WORKING_SECONDS, Delivery, Heartbeat, Heartbeats, WorkQueue
from abaco_worker.adopt import adopt
from abaco_worker.host import Host
from abaco_worker.seat import Seat

logger = logging.getLogger(__name__)

LATECOMERS_SECONDS = 7.0
"""After a restart, unsettled work is back within the queue's time-out, which is shorter."""

Key = tuple[str, str]


class Service:
    """All seats of one host."""

    def __init__(self, host: Host, queue: WorkQueue, heartbeats: Heartbeats) -> None:
        """Nothing runs yet."""
        self._host = host
        self._queue = queue
        self._heartbeats = heartbeats
        self._seats: dict[Key, Seat] = {}
        self._in_hand: dict[int, Delivery] = {}

    async def run(self) -> None:
        """Work until cancelled. Containers are left as they are, to be found again."""
        async with asyncio.TaskGroup() as tasks:
            self._startup(tasks)
            await self._main_loop(tasks)

    def _startup(self, tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(self._beat())
        tasks.create_task(self._keep())
        tasks.create_task(self._host.sweeper.run())
        tasks.create_task(adopt(self._host))
        logger.info("host %s takes work: %d seats", self._host.host_id, self._host.capacity)

    async def _main_loop(self, tasks: asyncio.TaskGroup) -> None:
        async with aclosing(self._queue.deliveries()) as deliveries:
            async for delivery in deliveries:
                await self._accept(delivery, tasks)

    async def _accept(self, delivery: Delivery, tasks: asyncio.TaskGroup) -> None:
        """Give a delivery to its seat, unless that has it already."""
        recorded = delivery.recorded
        if recorded.sequence in self._in_hand:
            await delivery.working()
            return
        key = (recorded.tenant, getattr(recorded.event, "worker_id", ""))
        if self._hasty(key, delivery):
            await delivery.retry(LATECOMERS_SECONDS)
            return
        self._in_hand[recorded.sequence] = delivery
        if key not in self._seats:
            self._seats[key] = Seat(self._host, self._settled)
            tasks.create_task(self._occupy(key))
        self._seats[key].give(delivery)

    def _hasty(self, key: Key, delivery: Delivery) -> bool:
        """Whether a seat is to be given up that may have a run from before a restart to finish."""
        unknown = key not in self._seats and not delivery.redelivered
        return unknown and isinstance(delivery.recorded.event, ev.WorkerStopRequested)

    async def _occupy(self, key: Key) -> None:
        await self._seats[key].run()
        del self._seats[key]

    def _settled(self, delivery: Delivery) -> None:
        del self._in_hand[delivery.recorded.sequence]

    async def _keep(self) -> None:
        """Say again and again that what is in hand is being worked on."""
        while True:
            await asyncio.sleep(WORKING_SECONDS)
            for delivery in list(self._in_hand.values()):
                await delivery.working()

    async def _beat(self) -> None:
        """Send signs of life, also when the engine is away: the work then waits for it here."""
        heartbeat = Heartbeat(host_id=self._host.host_id, capacity=self._host.capacity)
        while True:
            try:
                await self._heartbeats.send(heartbeat)
            except Unavailable as error:
                logger.debug("heartbeat not sent: %s", error)
            await asyncio.sleep(self._host.config.heartbeat_seconds)
