"""A worker of this host: performs its work items strictly in order, one at a time.

"Worker" is the unit that the events name; this process has as many as the host has slots.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from abaco_jetstream.ports import Delivery
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_telemetry.context import event_context
from abaco_worker.app.host_context import HostContext
from abaco_worker.app.work_items import WorkItemOutcome, perform, report_failure
from abaco_worker.domain.disposition import Disposition, back_off, disposition
from abaco_worker.domain.sandbox_spec import WorkerKey
from abaco_worker.sandbox.sandbox_pool import SandboxPool, empty_pool

logger = logging.getLogger(__name__)

STALE_SECONDS = 5.0
"""A work item that is older is read again from the log, since it may be over. If the clocks of two
hosts differ, the only effect is that extra read."""


class WorkerUnit:
    """One worker, from its first work item until it has stopped."""

    def __init__(
        self, host: HostContext, key: WorkerKey, acknowledged: Callable[[Delivery], None]
    ) -> None:
        """``acknowledged`` is called with each delivery that was acknowledged."""
        self._host = host
        self.key = key
        self.pool = _pool(host, key)
        self._acknowledged = acknowledged
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._live = False

    def enqueue(self, delivery: Delivery) -> None:
        """Perform a work item after all that were enqueued before."""
        self._queue.put_nowait(delivery)

    async def run(self) -> None:
        """Perform work items until the worker has stopped and the queue is empty."""
        while True:
            delivery = await self._queue.get()
            outcome = await self._perform(delivery)
            await delivery.done()
            self._acknowledged(delivery)
            if outcome.unused is not None:
                self._host.garbage_collector.collect(outcome.unused)
            self._live = outcome.worker_live
            if outcome.worker_live:
                self.pool.fill()
            else:
                self.pool.close()
            if not outcome.worker_live and self._queue.empty():
                return

    async def _perform(self, delivery: Delivery) -> WorkItemOutcome:
        """Perform a work item, and retry until it has an outcome."""
        recorded = delivery.recorded
        name = "run" if isinstance(recorded.event, ev.ExecutionAssigned) else "worker"
        recheck = delivery.redelivered or not self._live or _stale(recorded)
        attempts = 0
        with event_context(recorded), self._host.spans.span(name, parent=recorded.traceparent):
            while True:
                try:
                    return await perform(
                        self._host, self.pool, recorded, recheck=recheck or attempts > 0
                    )
                except Exception as error:  # the disposition decides about every error
                    attempts += 1
                    match disposition(error, attempts):
                        case Disposition.RETRY:
                            await _pause(recorded, error, attempts)
                        case Disposition.FAIL:
                            logger.debug("%s failed", recorded.id, exc_info=error)
                            return await report_failure(self._host, recorded, error)
                        case Disposition.DONE:
                            return WorkItemOutcome(worker_live=True)


def _pool(host: HostContext, key: WorkerKey) -> SandboxPool:
    """Return the worker's sandbox pool; it is empty if there is no launcher."""
    sandboxes = host.sandboxes
    if sandboxes is None:
        return empty_pool()
    return SandboxPool(lambda spec: sandboxes.make(host.host_id, key, spec), sandboxes.discard)


async def _pause(recorded: Recorded, error: Exception, attempts: int) -> None:
    seconds = back_off(attempts)
    logger.warning(
        "%s: %s. The worker retries in %.1f s; if this repeats, check the container engine, the"
        " disk and NATS",
        recorded.id,
        error,
        seconds,
    )
    await asyncio.sleep(seconds)


def _stale(recorded: Recorded) -> bool:
    return abs((datetime.now(UTC) - recorded.time).total_seconds()) > STALE_SECONDS
