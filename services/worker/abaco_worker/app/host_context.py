"""The host: what all workers of this process share, its identity, its settings and its ports."""

import asyncio
import dataclasses
import logging
from datetime import UTC, datetime

from msgspec.structs import replace

from abaco_jetstream.ports import EventLog, OutputLog
from abaco_jetstream.retry import append_until_stored
from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, draft, service_principal
from abaco_proto.errors import Conflict
from abaco_telemetry.context import NO_SPANS, Spans, current_traceparent
from abaco_worker.app.waiting import retry_log
from abaco_worker.app.worker_metrics import WorkerMetrics
from abaco_worker.domain import work_item_state
from abaco_worker.domain.run_spec import RunSpec
from abaco_worker.domain.work_item_state import WorkItemState
from abaco_worker.engine.engine_port import Engine
from abaco_worker.engine.image_store import ImageStore
from abaco_worker.runs.cancellations import Cancellations
from abaco_worker.runs.disk_limit import DiskMonitor
from abaco_worker.runs.run_spec_reader import RunSpecReader
from abaco_worker.sandbox.container_garbage_collector import ContainerGarbageCollector
from abaco_worker.sandbox.sandbox_store import SandboxStore
from abaco_worker.worker_settings import WorkerSettings

logger = logging.getLogger(__name__)

WORKER = service_principal(ev.Owner.WORKER)


@dataclasses.dataclass(frozen=True)
class HostContext:
    """One host. Its methods wait while the log is unavailable.

    ``sandboxes`` is None if there is no launcher. Containers then start when they are needed, one
    after another (docs/adr/0006), under ``cold_start_lock``.
    """

    host_id: str
    capacity: int
    config: WorkerSettings
    log: EventLog
    outputs: OutputLog
    engine: Engine
    images: ImageStore
    garbage_collector: ContainerGarbageCollector
    run_specs: RunSpecReader
    disks: DiskMonitor
    sandboxes: SandboxStore | None = None
    metrics: WorkerMetrics = dataclasses.field(default_factory=WorkerMetrics)
    spans: Spans = NO_SPANS
    cancellations: Cancellations = dataclasses.field(default_factory=Cancellations)
    cold_start_lock: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    async def report(self, cause: Recorded, event: ev.Event) -> None:
        """Append an event caused by ``cause``, once, through any outage of the log.

        In a trace it belongs to the current span, or else to that of its cause.
        """
        event_draft = draft(
            event,
            tenant=cause.tenant,
            time=datetime.now(UTC),
            causation_id=cause.id,
            correlation_id=cause.correlation_id or None,
            principal=WORKER,
            traceparent=current_traceparent() or cause.traceparent,
            hops=cause.hops,
        )
        try:
            with self.spans.span("report"):
                await append_until_stored(self.log, event_draft, after=cause.sequence)
        except Conflict:
            # The id contains the attempt and its host, so a previous process has appended it.
            logger.info("%s was appended by a previous process", event_draft.id)
        else:
            self.metrics.reported(event, datetime.now(UTC))

    async def with_rerun_image(self, run_spec: RunSpec, rerun: ev.Rerun) -> RunSpec:
        """Return the spec with the image of the run that it repeats.

        Raises:
            ImageRefused: that image is not on this host any more, and cannot be pulled.
        """
        image = await self.images.find_by_digest(run_spec.definition.image, rerun.image)
        return replace(run_spec, rerun_image=image)

    async def read_state(self, work_item: Recorded) -> WorkItemState:
        """Return the current state of a work item, from the log."""

        async def fold() -> WorkItemState:
            state = work_item_state.initial_state(work_item)
            filters = work_item_state.filters(work_item)
            async for batch in self.log.read(filters, after=work_item.sequence):
                for recorded in batch:
                    state = work_item_state.evolve(state, recorded)
            return state

        return await retry_log(fold)
