"""What all work on this host shares: its identity, its settings, its ports."""

import asyncio
import dataclasses
import logging
from datetime import UTC, datetime

import msgspec

from abaco_jetstream.ports import EventLog, OutputLog
from abaco_jetstream.retry import append_until_stored
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft
from abaco_proto.errors import Conflict
from abaco_telemetry.spans import NO_SPANS, Spans, current
from abaco_worker.app.waiting import patiently
from abaco_worker.app.worker_metrics import Metrics
from abaco_worker.domain import work_item_state
from abaco_worker.domain.run_spec import Order
from abaco_worker.domain.work_item_state import Standing
from abaco_worker.engine.engine_port import Engine
from abaco_worker.engine.image_store import Images
from abaco_worker.runs.cancellations import Interruptions
from abaco_worker.runs.disk_limit import Disks
from abaco_worker.runs.run_spec_reader import Orders
from abaco_worker.sandbox.container_garbage_collector import Sweeper
from abaco_worker.sandbox.sandbox_store import Sandboxes
from abaco_worker.worker_settings import Config

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Host:
    """One host, and its side of the log. Whatever it asks of the log it waits for.

    ``sandboxes`` are None where there is no launcher: then containers start when they are needed,
    one after another (docs/adr/0006), under the lock ``starting``.
    """

    host_id: str
    capacity: int
    config: Config
    log: EventLog
    outputs: OutputLog
    engine: Engine
    images: Images
    sweeper: Sweeper
    orders: Orders
    disks: Disks
    sandboxes: Sandboxes | None = None
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    spans: Spans = NO_SPANS
    interruptions: Interruptions = dataclasses.field(default_factory=Interruptions)
    starting: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    async def report(self, cause: Recorded, event: ev.Event) -> None:
        """Append what was caused by ``cause``, once, however long the log is away.

        It is part of the step at hand, if there is one, else of that of its cause.
        """
        wish = draft(
            event,
            tenant=cause.tenant,
            time=datetime.now(UTC),
            causation_id=cause.id,
            correlation_id=cause.correlation_id or None,
            traceparent=current() or cause.traceparent,
            hops=cause.hops,
        )
        try:
            with self.spans.span("report"):
                await append_until_stored(self.log, wish, after=cause.sequence)
        except Conflict:
            # An id says who reports what of which attempt: only this host before a crash could.
            logger.info("%s: was reported before", wish.id)
        else:
            self.metrics.reported(event, datetime.now(UTC))

    async def with_image(self, order: Order) -> Order:
        """An order with the image that it runs: the actor's, or that of the run it repeats.

        Raises:
            ImageRefused: the image of then cannot be had any more.
        """
        rerun = order.message.rerun
        if rerun is None:
            return order
        found = await self.images.of_digest(order.definition.image, rerun.image)
        return msgspec.structs.replace(order, found_image=found)

    async def look(self, wish: Recorded) -> Standing:
        """What the log says has become of a wish."""

        async def fold() -> Standing:
            found = work_item_state.at_once(wish)
            async for batch in self.log.read(work_item_state.filters(wish), after=wish.sequence):
                for recorded in batch:
                    found = work_item_state.evolve(found, recorded)
            return found

        return await patiently(fold)
