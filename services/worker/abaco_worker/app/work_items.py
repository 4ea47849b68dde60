"""The three work items of a host: prepare a worker, run a message, and stop a worker."""

import logging
from datetime import UTC, datetime

import msgspec

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, format_time, unrecognized_warning
from abaco_proto.errors import Undecodable
from abaco_worker.app.host_context import HostContext
from abaco_worker.domain import event_builders
from abaco_worker.domain.container_labels import assignment_key, container_name
from abaco_worker.domain.sandbox_spec import is_privileged, sandbox_spec, wanted_isolation
from abaco_worker.domain.work_item_state import WorkItemState, initial_state
from abaco_worker.runs import cold_run, sandbox_run
from abaco_worker.sandbox.container_garbage_collector import UnusedContainer
from abaco_worker.sandbox.sandbox_pool import SandboxPool

logger = logging.getLogger(__name__)


class WorkItemOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a work item: whether the worker lives on, and a container to be removed."""

    worker_live: bool
    unused: UnusedContainer | None = None


async def perform(
    host: HostContext, pool: SandboxPool, recorded: Recorded, *, recheck: bool
) -> WorkItemOutcome:
    """Perform a work item and report it. With ``recheck``, first read from the log if it is open.

    Raises:
        AbacoError: see ``domain/disposition.py``.
    """
    state = await host.read_state(recorded) if recheck else initial_state(recorded)
    match recorded.event:
        case ev.WorkerRequested() as event:
            return await _prepare(host, pool, recorded, event, state)
        case ev.ExecutionAssigned() as event:
            return await _run(host, pool, recorded, event, state)
        case ev.WorkerStopRequested() as event:
            return await _stop(host, recorded, event, state)
    raise Undecodable(f"event {recorded.sequence} is not a work item of a host")


async def report_failure(
    host: HostContext, recorded: Recorded, error: Exception
) -> WorkItemOutcome:
    """Report that a work item failed, and why.

    An assignment becomes a failed attempt, also if the image of a rerun cannot be pulled: the
    worker can run other messages. A worker that cannot be prepared or stopped has failed.
    """
    event = recorded.event
    reason = str(error) or type(error).__name__
    match event:
        case ev.ExecutionAssigned():
            await host.report(recorded, event_builders.attempt_failed(event, reason))
            logger.warning(
                "attempt %d of %s failed: %s. The scheduler tries again, up to max_attempts",
                event.attempt,
                event.execution_id,
                reason,
            )
            return WorkItemOutcome(worker_live=True, unused=_unused_container(host, recorded))
        case ev.WorkerRequested() | ev.WorkerStopRequested():
            revision = event.revision if isinstance(event, ev.WorkerRequested) else 0
            failed = event_builders.worker_failed(event, revision=revision, reason=reason)
            await host.report(recorded, failed)
            logger.warning(
                "worker %s failed: %s. The scheduler requests another one after a pause; if this"
                " repeats, check the actor's image and the container engine",
                event.worker_id,
                reason,
            )
            return WorkItemOutcome(worker_live=False)
    logger.warning(
        "work item ignored: %s. Update the worker if a newer scheduler runs",
        unrecognized_warning(recorded) or reason,
    )
    return WorkItemOutcome(worker_live=False)


async def _prepare(
    host: HostContext,
    pool: SandboxPool,
    recorded: Recorded,
    event: ev.WorkerRequested,
    state: WorkItemState,
) -> WorkItemOutcome:
    if not state.request_open:
        return WorkItemOutcome(worker_live=state.worker_live)
    definition = (await host.run_specs.definition_at(event.actor_sequence)).definition
    image = await host.images.prepare(definition.image)
    container_id = None
    if host.sandboxes is not None:
        pool.prewarm(sandbox_spec(definition, host.config), event.actor_sequence)
        container_id = (await pool.ready()).record.container_id if event.warm else None
    isolation, isolation_reason = _isolation(host, definition, image.image_id)
    ready = event_builders.worker_ready(
        event,
        image=definition.image,
        digest=image.digest,
        location=host.engine.location,
        container_id=container_id,
        isolation=isolation,
        isolation_reason=isolation_reason,
    )
    await host.report(recorded, ready)
    logger.info("worker %s is ready: image %s", event.worker_id, definition.image)
    return WorkItemOutcome(worker_live=True)


def _isolation(
    host: HostContext, definition: ev.Definition, image_id: str
) -> tuple[ev.Isolation, str]:
    """Return what messages get, and what it lacks of what was asked for, or an empty text."""
    if wanted_isolation(definition, host.config) != "sandbox":
        return ev.Isolation.CONTAINER, ""
    if host.sandboxes is None:
        reason = "this host has no launcher"
    elif is_privileged(definition, host.config):
        reason = "a privileged program can change its container"
    else:
        reason = host.sandboxes.refusal(image_id)
    if host.sandboxes is not None and not reason:
        return ev.Isolation.SANDBOX, host.sandboxes.shared_network_reason()
    return ev.Isolation.CONTAINER, reason


async def _run(
    host: HostContext,
    pool: SandboxPool,
    recorded: Recorded,
    event: ev.ExecutionAssigned,
    state: WorkItemState,
) -> WorkItemOutcome:
    if not state.run_wanted:
        logger.info(
            "attempt %d of %s is not run: it is no longer wanted", event.attempt, event.execution_id
        )
        return WorkItemOutcome(
            worker_live=state.worker_live, unused=_unused_container(host, recorded)
        )
    taken_at = datetime.now(UTC)
    if pool.image:  # the engine and the log answer at the same time
        host.images.ask(pool.image, event.message_sequence, recorded.sequence)
    with host.spans.span("fetch"):
        run_spec = await host.run_specs.read(recorded, event)
    host.metrics.taken(run_spec.accepted_at, taken_at)
    if host.sandboxes is None:
        reported = await cold_run.execute(host, run_spec, state)
    else:
        reported = await sandbox_run.execute(
            host, host.sandboxes, pool, run_spec, state, taken_at=format_time(taken_at)
        )
    return WorkItemOutcome(worker_live=reported, unused=_unused_container(host, recorded))


async def _stop(
    host: HostContext, recorded: Recorded, event: ev.WorkerStopRequested, state: WorkItemState
) -> WorkItemOutcome:
    """Report the stop. The worker is idle: its queue has ended all its runs before."""
    if state.worker_live:
        await host.report(recorded, event_builders.worker_stopped(event))
        logger.info("worker %s has stopped: %s", event.worker_id, event.reason)
    return WorkItemOutcome(worker_live=False)


def _unused_container(host: HostContext, recorded: Recorded) -> UnusedContainer | None:
    """Return the container of an assignment that is over."""
    if host.sandboxes is None:
        return UnusedContainer(container_name(recorded))
    return host.sandboxes.release(assignment_key(recorded))
