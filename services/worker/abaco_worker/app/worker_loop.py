"""The loop of the worker process: receives the host's work items, and passes each to its worker."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress

from abaco_jetstream.ports import WORKING_SECONDS, Delivery, Heartbeats, WorkQueue
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, unrecognized_warning
from abaco_proto.errors import AbacoError, Unavailable
from abaco_proto.heartbeat import Heartbeat
from abaco_proto.names import all_events_filter, all_of_type_filter
from abaco_worker.app.adoption import Adopted, adopt_containers
from abaco_worker.app.host_context import HostContext
from abaco_worker.app.live_workers import LiveWorkers
from abaco_worker.app.waiting import retry_log
from abaco_worker.app.worker_unit import WorkerUnit
from abaco_worker.domain.engine_errors import EngineFault
from abaco_worker.domain.sandbox_spec import WorkerKey, sandbox_spec
from abaco_worker.sandbox.sandbox import ANSWER_SECONDS, RECONNECT_SECONDS, Sandbox
from abaco_worker.sandbox.sandbox_directory import SandboxDirectory
from abaco_worker.sandbox.sandbox_pool import SandboxPool
from abaco_worker.sandbox.sandbox_store import SandboxStore

logger = logging.getLogger(__name__)

REDELIVERY_SECONDS = 7.0
"""How long after the first delivery a work item of a previous process may be delivered again. The
queue's own timeout is shorter."""

POOL_CHECK_SECONDS = 0.5
"""The interval between checks that the idle sandboxes are alive."""

IMAGE_FOLLOW_PAUSE_SECONDS = 2.0
"""The pause before the worker subscribes again to image changes, after the engine went away."""

FOLLOWED_EVENTS = (ev.ExecutionHaltRequested, ev.WorkerLost, ev.ActorUpdated)
"""Events that address no host and may concern this one."""


class WorkerLoop:
    """The worker process of one host, with all its workers."""

    def __init__(self, host: HostContext, queue: WorkQueue, heartbeats: Heartbeats) -> None:
        self._host = host
        self._queue = queue
        self._heartbeats = heartbeats
        self._workers: dict[WorkerKey, WorkerUnit] = {}
        self._seen: set[WorkerKey] = set()
        self._redelivery_until = math.inf
        self._restored = False
        self._unacknowledged: dict[int, Delivery] = {}
        self._images_changed = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled. Containers continue; the next process adopts them."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._startup(tasks)
                await self._main_loop(tasks)
        finally:
            self._shutdown()

    async def update_metrics(self) -> None:
        """Update the gauges; the metrics endpoint calls it before each answer."""
        metrics = self._host.metrics
        metrics.capacity.set(self._host.capacity)
        metrics.workers.set(len(self._workers))
        metrics.work_items.set(len(self._unacknowledged))
        metrics.garbage.set(self._host.garbage_collector.waiting)
        metrics.count_sandboxes(worker.pool for worker in self._workers.values())

    def _startup(self, tasks: asyncio.TaskGroup) -> None:
        if self._host.sandboxes is not None:
            self._host.sandboxes.open()
            tasks.create_task(self._check_pools())
            tasks.create_task(self._follow_images(self._host.sandboxes))
            tasks.create_task(self._replace_after_changes())
        tasks.create_task(self._send_heartbeats())
        tasks.create_task(self._extend_deliveries())
        tasks.create_task(self._follow_log(tasks))
        tasks.create_task(self._host.garbage_collector.run())
        tasks.create_task(self._restore(tasks))
        logger.info("host %s accepts work: %d slots", self._host.host_id, self._host.capacity)

    async def _main_loop(self, tasks: asyncio.TaskGroup) -> None:
        async with aclosing(self._queue.deliveries()) as deliveries:
            async for delivery in deliveries:
                await self._accept(delivery, tasks)

    def _shutdown(self) -> None:
        for worker in self._workers.values():
            worker.pool.detach()
        if self._host.sandboxes is not None:
            self._host.sandboxes.detach()

    # -- work items

    async def _accept(self, delivery: Delivery, tasks: asyncio.TaskGroup) -> None:
        """Pass a delivery to its worker, unless the worker has it already."""
        recorded = delivery.recorded
        self._host.metrics.delivered(redelivered=delivery.redelivered)
        if recorded.sequence in self._unacknowledged:
            await delivery.working()
            return
        key = _key(recorded)
        self._redelivery_until = min(self._redelivery_until, time.monotonic() + REDELIVERY_SECONDS)
        if self._may_precede_a_run(key, delivery):
            await delivery.retry(REDELIVERY_SECONDS)
            return
        self._mark_seen(key)
        self._unacknowledged[recorded.sequence] = delivery
        self._worker(key, tasks).enqueue(delivery)

    def _may_precede_a_run(self, key: WorkerKey, delivery: Delivery) -> bool:
        """Return whether a stop may come before the redelivery of a run of a previous process."""
        if not isinstance(delivery.recorded.event, ev.WorkerStopRequested):
            return False
        early = time.monotonic() < self._redelivery_until
        return early and key not in self._seen and not delivery.redelivered

    def _mark_seen(self, key: WorkerKey) -> None:
        """Keep the workers with a work item in this process, until the restoration is over."""
        if self._restored and time.monotonic() >= self._redelivery_until:
            self._seen.clear()
        else:
            self._seen.add(key)

    def _worker(self, key: WorkerKey, tasks: asyncio.TaskGroup) -> WorkerUnit:
        if key not in self._workers:
            self._workers[key] = WorkerUnit(self._host, key, self._forget_delivery)
            tasks.create_task(self._run_worker(key))
        return self._workers[key]

    async def _run_worker(self, key: WorkerKey) -> None:
        await self._workers[key].run()
        del self._workers[key]

    def _forget_delivery(self, delivery: Delivery) -> None:
        del self._unacknowledged[delivery.recorded.sequence]

    async def _extend_deliveries(self) -> None:
        """Report periodically that the deliveries are being worked on."""
        while True:
            await asyncio.sleep(WORKING_SECONDS)
            for delivery in list(self._unacknowledged.values()):
                await delivery.working()

    # -- what a previous process left

    async def _restore(self, tasks: asyncio.TaskGroup) -> None:
        """Give each live worker its idle sandbox back, or a new one."""
        adopted = await adopt_containers(self._host)
        sandboxes = self._host.sandboxes
        workers = [] if sandboxes is None else await self._live_workers(sandboxes, tasks)
        logger.info("%d live workers restored", len(workers))
        if sandboxes is not None:
            await self._restore_workers(sandboxes, adopted, workers, tasks)
        self._restored = True

    async def _restore_workers(
        self,
        sandboxes: SandboxStore,
        adopted: Adopted,
        workers: Sequence[WorkerKey],
        tasks: asyncio.TaskGroup,
    ) -> None:
        idle = adopted.idle
        for key, found in (idle | adopted.busy).items():
            tasks.create_task(self._learn_network(sandboxes, key, found))
        replaced = sum(map(sandboxes.has_other_launcher, idle.values()))
        needed = [key for key in workers if key not in self._seen and key not in adopted.busy]
        pools = [(self._worker(key, tasks), idle.pop(key, None)) for key in needed]
        await asyncio.gather(
            *(self._restore_pool(sandboxes, worker, found) for worker, found in pools)
        )
        for directory in idle.values():
            sandboxes.remove_found(directory, "its worker does not need it")
        if replaced:
            logger.info("%d idle sandboxes replaced: the launcher's version has changed", replaced)

    async def _live_workers(
        self, sandboxes: SandboxStore, tasks: asyncio.TaskGroup
    ) -> list[WorkerKey]:
        """Return this host's workers that are live in the log."""
        live = LiveWorkers(self._host.log, self._host.host_id, sandboxes.folder)
        workers = await live.start()
        tasks.create_task(live.run())
        return workers

    async def _restore_pool(
        self, sandboxes: SandboxStore, worker: WorkerUnit, directory: SandboxDirectory | None
    ) -> None:
        if directory is not None:
            if sandboxes.is_claimed(directory):
                return  # a run that was delivered meanwhile uses it
            record = directory.read_record()
            if record is not None and sandboxes.usable(directory, record):
                sandbox = sandboxes.reopen(directory, record)
                if await self._adopt_sandbox(sandboxes, worker, sandbox):
                    return
                await self._learn_network(sandboxes, worker.key, directory)
                if sandbox.reusable and await self._adopt_sandbox(sandboxes, worker, sandbox):
                    return
            sandboxes.remove_found(directory, "it cannot be used any more")
        key = worker.key
        newest = await self._host.run_specs.newest_definition(key.tenant, key.actor_id)
        if newest is not None:
            defined, sequence = newest
            worker.pool.prewarm(sandbox_spec(defined.definition, self._host.config), sequence)

    @staticmethod
    async def _adopt_sandbox(sandboxes: SandboxStore, worker: WorkerUnit, sandbox: Sandbox) -> bool:
        """Keep a sandbox that is idle and attached to its network; return whether it is."""
        try:
            if await sandbox.connect(RECONNECT_SECONDS):
                await sandbox.attach_network()
                sandboxes.claim(sandbox)
                worker.pool.adopt(sandbox)
                return True
        except Unavailable as error:
            logger.debug("%s cannot be used: %s", sandbox.directory.name, error)
        sandbox.close()
        return False

    async def _learn_network(
        self, sandboxes: SandboxStore, key: WorkerKey, directory: SandboxDirectory
    ) -> None:
        """Learn how the messages of an adopted container are attached, before the next but one."""
        record = directory.read_record()
        if record is not None and record.connected:
            with suppress(AbacoError, OSError):  # then the container is replaced after a message
                await sandboxes.learn_network(self._host.host_id, key, record.spec, record.image)

    async def _check_pools(self) -> None:
        while True:
            await asyncio.sleep(POOL_CHECK_SECONDS)
            for worker in list(self._workers.values()):
                worker.pool.check()

    # -- images whose names move

    async def _follow_images(self, sandboxes: SandboxStore) -> None:
        """Follow the changes of images and their names, also while sandboxes are being replaced."""
        while True:
            try:
                async with aclosing(self._host.images.changes()) as changes:
                    async for _ in changes:
                        self._images_changed.set()
            except (Unavailable, EngineFault) as error:
                logger.debug("image changes are not followed now: %s", error)
            sandboxes.forget_network()
            await asyncio.sleep(IMAGE_FOLLOW_PAUSE_SECONDS)

    async def _replace_after_changes(self) -> None:
        """After each change of an image or its name, replace the sandboxes with an old image."""
        while True:
            await self._images_changed.wait()
            self._images_changed.clear()
            await self._replace_outdated(list(self._workers.values()))

    async def _replace_outdated(self, workers: Sequence[WorkerUnit]) -> None:
        await asyncio.gather(*(self._replace_if_outdated(worker.pool) for worker in workers))

    async def _replace_if_outdated(self, pool: SandboxPool) -> None:
        idle = await pool.wait_idle(ANSWER_SECONDS)
        if idle is None:
            return
        image = idle.record.spec.image
        if await self._host.images.has_moved(image, idle.record.image.image_id, 0, 0):
            logger.info("image %s has moved: sandbox %s is replaced", image, idle.directory.name)
            pool.replace(idle)

    async def _pull_after_update(self, image: str, workers: Sequence[WorkerUnit]) -> None:
        """After an update of an actor, pull the image by the policy, as for a new worker."""
        try:
            await self._host.images.prepare(image)
        except AbacoError as error:
            logger.warning(
                "image %s was not pulled after an update: %s. Workers continue with the image on"
                " this host; correct the actor's image, or make the registry available",
                image,
                error,
            )
        await self._replace_outdated(workers)

    # -- events that address no host

    async def _follow_log(self, tasks: asyncio.TaskGroup) -> None:
        last = await retry_log(lambda: self._host.log.last(all_events_filter()))
        after = last.sequence if last is not None else 0
        filters = [all_of_type_filter(kind) for kind in FOLLOWED_EVENTS]
        async with aclosing(self._host.log.follow(filters, after=after)) as batches:
            async for batch in batches:
                for recorded in batch.events:
                    self._apply(recorded, tasks)

    def _apply(self, recorded: Recorded, tasks: asyncio.TaskGroup) -> None:
        if (line := unrecognized_warning(recorded)) is not None:
            logger.warning("%s", line)
        self._host.cancellations.apply(recorded)
        event = recorded.event
        if isinstance(event, ev.ActorUpdated):
            spec = sandbox_spec(event.definition, self._host.config)
            actor = recorded.tenant, event.actor_id
            workers = [w for k, w in self._workers.items() if (k.tenant, k.actor_id) == actor]
            for worker in workers:
                worker.pool.update_spec(spec, recorded.sequence)
            if workers:
                tasks.create_task(self._pull_after_update(spec.image, workers))

    async def _send_heartbeats(self) -> None:
        """Send heartbeats, also while the engine is unavailable: work waits for it on this host."""
        heartbeat = Heartbeat(host_id=self._host.host_id, capacity=self._host.capacity)
        while True:
            try:
                await self._heartbeats.send(heartbeat)
            except Unavailable as error:
                logger.debug("heartbeat not sent: %s", error)
            await asyncio.sleep(self._host.config.heartbeat_seconds)


def _key(recorded: Recorded) -> WorkerKey:
    """Return the worker that an event addresses."""
    event = recorded.event
    actor_id, worker_id = getattr(event, "actor_id", ""), getattr(event, "worker_id", "")
    return WorkerKey(recorded.tenant, actor_id, worker_id)
