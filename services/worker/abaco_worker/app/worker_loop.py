"""The shell: takes what is addressed to this host, and gives each piece to its seat."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress

from abaco_jetstream.ports import WORKING_SECONDS, Delivery, Heartbeats, WorkQueue
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, not_understood
from abaco_proto.errors import AbacoError, Unavailable
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.subjects import all_events_filter, all_of_type_filter
from abaco_worker.app.adoption import adopt
from abaco_worker.app.host import Host
from abaco_worker.app.live_workers import LiveWorkers
from abaco_worker.app.waiting import patiently
from abaco_worker.app.worker_unit import Seat
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.sandbox_record import Made
from abaco_worker.domain.sandbox_spec import SeatKey, blueprint
from abaco_worker.sandbox.container_garbage_collector import Leftover
from abaco_worker.sandbox.sandbox import ANSWER_SECONDS, FOUND_SECONDS, Sandbox
from abaco_worker.sandbox.sandbox_directory import Place
from abaco_worker.sandbox.sandbox_pool import Stock

logger = logging.getLogger(__name__)

LATECOMERS_SECONDS = 7.0
"""After the first delivery, unsettled work of before a restart is back within the queue's time-out,
which is shorter."""

STOCK_SECONDS = 0.5
"""How often it is looked whether the sandboxes that wait are alive."""

IMAGES_AGAIN_SECONDS = 2.0
"""How long after the engine went away it is asked again which images change."""

FOLLOWED = (ev.ExecutionHaltRequested, ev.WorkerLost, ev.ActorUpdated)
"""What is addressed to no host and may yet concern this one."""


class Service:
    """All seats of one host."""

    def __init__(self, host: Host, queue: WorkQueue, heartbeats: Heartbeats) -> None:
        """Nothing runs yet."""
        self._host = host
        self._queue = queue
        self._heartbeats = heartbeats
        self._seats: dict[SeatKey, Seat] = {}
        self._met: set[SeatKey] = set()
        self._latecomers_until = math.inf
        self._restored = False
        self._in_hand: dict[int, Delivery] = {}

    async def run(self) -> None:
        """Work until cancelled. Containers are left as they are, to be found again."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._startup(tasks)
                await self._main_loop(tasks)
        finally:
            for seat in self._seats.values():
                seat.stock.let_go()
            if self._host.sandboxes is not None:
                self._host.sandboxes.let_go()

    async def count(self) -> None:
        """Bring up to date what is counted only for those who ask."""
        metrics = self._host.metrics
        metrics.capacity.set(self._host.capacity)
        metrics.seats.set(len(self._seats))
        metrics.in_hand.set(len(self._in_hand))
        metrics.sweeping.set(self._host.sweeper.waiting)
        metrics.count(seat.stock for seat in self._seats.values())

    def _startup(self, tasks: asyncio.TaskGroup) -> None:
        if self._host.sandboxes is not None:
            self._host.sandboxes.open()
            tasks.create_task(self._look_after_stocks())
            tasks.create_task(self._follow_images())
        tasks.create_task(self._beat())
        tasks.create_task(self._keep())
        tasks.create_task(self._follow(tasks))
        tasks.create_task(self._host.sweeper.run())
        tasks.create_task(self._restore(tasks))
        logger.info("host %s takes work: %d seats", self._host.host_id, self._host.capacity)

    async def _main_loop(self, tasks: asyncio.TaskGroup) -> None:
        async with aclosing(self._queue.deliveries()) as deliveries:
            async for delivery in deliveries:
                await self._accept(delivery, tasks)

    # -- what is addressed to this host

    async def _accept(self, delivery: Delivery, tasks: asyncio.TaskGroup) -> None:
        """Give a delivery to its seat, unless that has it already."""
        recorded = delivery.recorded
        self._host.metrics.delivered(again=delivery.redelivered)
        if recorded.sequence in self._in_hand:
            await delivery.working()
            return
        key = _key(recorded)
        late = time.monotonic() + LATECOMERS_SECONDS
        self._latecomers_until = min(self._latecomers_until, late)
        if self._hasty(key, delivery):
            await delivery.retry(LATECOMERS_SECONDS)
            return
        self._meet(key)
        self._in_hand[recorded.sequence] = delivery
        self._seat(key, tasks).give(delivery)

    def _hasty(self, key: SeatKey, delivery: Delivery) -> bool:
        """Whether a seat is to be given up that may have a run from before a restart to finish."""
        if not isinstance(delivery.recorded.event, ev.WorkerStopRequested):
            return False
        early = time.monotonic() < self._latecomers_until
        return early and key not in self._met and not delivery.redelivered

    def _meet(self, key: SeatKey) -> None:
        """Remember who was heard of in this life, as long as it matters: a while from its start."""
        if self._restored and time.monotonic() >= self._latecomers_until:
            self._met.clear()
        else:
            self._met.add(key)

    def _seat(self, key: SeatKey, tasks: asyncio.TaskGroup) -> Seat:
        if key not in self._seats:
            self._seats[key] = Seat(self._host, key, self._settled)
            tasks.create_task(self._occupy(key))
        return self._seats[key]

    async def _occupy(self, key: SeatKey) -> None:
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

    # -- what an earlier life has left

    async def _restore(self, tasks: asyncio.TaskGroup) -> None:
        """Give the seats of before their sandboxes back, or new ones."""
        waiting = await adopt(self._host)
        seats = await self._live_workers(tasks)
        logger.info("%d seats of before", len(seats))
        replaced = 0
        for key in seats:
            if key not in self._met:
                place = waiting.pop(key, None)
                replaced += self._is_of_another_launcher(place)
                await self._restock(self._seat(key, tasks), place)
        for place in waiting.values():
            replaced += self._is_of_another_launcher(place)
            self._host.sweeper.take(Leftover(place.name, place.folder))
        self._restored = True
        if replaced:
            logger.info("%d idle containers replaced: the launcher is another one now", replaced)

    def _is_of_another_launcher(self, place: Place | None) -> bool:
        sandboxes = self._host.sandboxes
        made = place.made(Made) if place is not None else None
        return sandboxes is not None and made is not None and made.launcher != sandboxes.launcher

    async def _live_workers(self, tasks: asyncio.TaskGroup) -> list[SeatKey]:
        """The workers of this host that the scheduler counts on, from the log."""
        sandboxes = self._host.sandboxes
        if sandboxes is None:
            return []
        live = LiveWorkers(self._host.log, self._host.host_id, sandboxes.folder)
        found = await live.start()
        tasks.create_task(live.run())
        return found

    async def _restock(self, seat: Seat, place: Place | None) -> None:
        sandboxes = self._host.sandboxes
        made = place.made(Made) if place is not None else None
        if place and made and sandboxes and sandboxes.usable(place, made):
            sandbox = Sandbox(place, made)
            with suppress(Unavailable):
                if await sandbox.connect(FOUND_SECONDS):
                    seat.stock.adopt(sandbox)
                    return
        if place is not None:
            self._host.sweeper.take(Leftover(place.name, place.folder))
        defined = await self._host.orders.newest_definition(seat.key.tenant, seat.key.actor_id)
        if defined is not None:
            seat.stock.want(blueprint(defined.definition, self._host.config))

    async def _look_after_stocks(self) -> None:
        while True:
            await asyncio.sleep(STOCK_SECONDS)
            for seat in list(self._seats.values()):
                seat.stock.look()

    # -- images whose names move

    async def _follow_images(self) -> None:
        """Whenever an image or its name changes, see which sandboxes wait with an old one."""
        while True:
            try:
                async with aclosing(self._host.engine.image_changes()) as changes:
                    async for _ in changes:
                        await self._replace_outdated(list(self._seats.values()))
            except (Unavailable, EngineFault) as error:
                logger.debug("images are not followed: %s", error)
            await asyncio.sleep(IMAGES_AGAIN_SECONDS)

    async def _replace_outdated(self, seats: Sequence[Seat]) -> None:
        await asyncio.gather(*(self._replace_if_outdated(seat.stock) for seat in seats))

    async def _replace_if_outdated(self, stock: Stock) -> None:
        waiting = await stock.made(ANSWER_SECONDS)
        if waiting is None:
            return
        image = waiting.blueprint.image
        if await self._host.images.moved(image, waiting.made.image.image_id):
            logger.info("image %s is another one: %s is replaced", image, waiting.place.name)
            stock.replace(waiting)

    async def _resolve_anew(self, image: str, seats: Sequence[Seat]) -> None:
        """After an update: have the image as for a new seat, pulled where the policy says so."""
        try:
            await self._host.images.prepare(image)
        except AbacoError as error:
            logger.warning("image %s after an update: %s", image, error)
        await self._replace_outdated(seats)

    # -- what is addressed to nobody

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        last = await patiently(lambda: self._host.log.last(all_events_filter()))
        after = last.sequence if last is not None else 0
        filters = [all_of_type_filter(kind) for kind in FOLLOWED]
        async with aclosing(self._host.log.follow(filters, after=after)) as batches:
            async for batch in batches:
                for recorded in batch.events:
                    self._learn(recorded, tasks)

    def _learn(self, recorded: Recorded, tasks: asyncio.TaskGroup) -> None:
        if (said := not_understood(recorded)) is not None:
            logger.warning("%s", said)
        self._host.interruptions.learn(recorded)
        event = recorded.event
        if isinstance(event, ev.ActorUpdated):
            drawn = blueprint(event.definition, self._host.config)
            actor = recorded.tenant, event.actor_id
            seats = [s for k, s in self._seats.items() if (k.tenant, k.actor_id) == actor]
            for seat in seats:
                seat.stock.renew(drawn)
            if seats:
                tasks.create_task(self._resolve_anew(drawn.image, seats))

    async def _beat(self) -> None:
        """Send signs of life, also when the engine is away: the work then waits for it here."""
        heartbeat = Heartbeat(host_id=self._host.host_id, capacity=self._host.capacity)
        while True:
            try:
                await self._heartbeats.send(heartbeat)
            except Unavailable as error:
                logger.debug("heartbeat not sent: %s", error)
            await asyncio.sleep(self._host.config.heartbeat_seconds)


def _key(recorded: Recorded) -> SeatKey:
    """The seat an event is addressed to."""
    event = recorded.event
    actor_id, worker_id = getattr(event, "actor_id", ""), getattr(event, "worker_id", "")
    return SeatKey(recorded.tenant, actor_id, worker_id)
