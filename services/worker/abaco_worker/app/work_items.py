"""The three things a host is asked for: a seat, a run on it, and to give it up."""

import logging
from datetime import UTC, datetime

import msgspec

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded, format_time, not_understood
from abaco_proto.errors import Undecodable
from abaco_worker.app.host import Host
from abaco_worker.domain import event_builders, work_item_state
from abaco_worker.domain.container_labels import container_name, mark
from abaco_worker.domain.sandbox_spec import blueprint
from abaco_worker.domain.work_item_state import Standing
from abaco_worker.runs import cold_run, sandbox_run
from abaco_worker.sandbox.container_garbage_collector import Leftover
from abaco_worker.sandbox.sandbox_pool import Stock

logger = logging.getLogger(__name__)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is left when a piece of work is settled.

    ``seat_lives`` says whether the seat goes on; ``leftover`` is to be removed.
    """

    seat_lives: bool
    leftover: Leftover | None = None


async def perform(host: Host, stock: Stock, recorded: Recorded, *, look: bool) -> Outcome:
    """Do what an event asks for, and report it. ``look``: somebody may have done it before.

    Raises:
        AbacoError: see ``domain/disposition.py``.
    """
    found = await host.look(recorded) if look else work_item_state.at_once(recorded)
    match recorded.event:
        case ev.WorkerRequested() as event:
            return await _prepare(host, stock, recorded, event, found)
        case ev.ExecutionAssigned() as event:
            return await _run(host, stock, recorded, event, found)
        case ev.WorkerStopRequested() as event:
            return await _stop(host, recorded, event, found)
    raise Undecodable(f"event {recorded.sequence} is no work for a host")


async def give_up(host: Host, recorded: Recorded, error: Exception) -> Outcome:
    """Report what came of it, and why, as the failure of what failed.

    An assignment that came to nothing is a failed attempt, also when its image cannot be had: the
    worker can run other messages. A worker that cannot be made ready failed.
    """
    event = recorded.event
    reason = str(error) or type(error).__name__
    match event:
        case ev.ExecutionAssigned():
            await host.report(recorded, event_builders.attempt_failed(event, reason))
            logger.warning("%s attempt %d: %s", event.execution_id, event.attempt, reason)
            return Outcome(seat_lives=True, leftover=_leftover(host, recorded))
        case ev.WorkerRequested() | ev.WorkerStopRequested():
            revision = event.revision if isinstance(event, ev.WorkerRequested) else 0
            await host.report(
                recorded, event_builders.failed(event, revision=revision, reason=reason)
            )
            logger.warning("%s failed: %s", event.worker_id, reason)
            return Outcome(seat_lives=False)
    logger.warning("%s", not_understood(recorded) or reason)
    return Outcome(seat_lives=False)


async def _prepare(
    host: Host, stock: Stock, recorded: Recorded, event: ev.WorkerRequested, found: Standing
) -> Outcome:
    if not found.request_open:
        return Outcome(seat_lives=found.seat_lives)
    definition = (await host.orders.definition_at(event.actor_sequence)).definition
    image = await host.images.prepare(definition.image)
    container_id = None
    if host.sandboxes is not None:
        stock.want(blueprint(definition, host.config))
        container_id = (await stock.ready()).made.container_id if event.warm else None
    ready = event_builders.ready(
        event,
        image=definition.image,
        digest=image.digest,
        location=host.engine.location,
        container_id=container_id,
    )
    await host.report(recorded, ready)
    logger.info("%s ready: image %s", event.worker_id, definition.image)
    return Outcome(seat_lives=True)


async def _run(
    host: Host, stock: Stock, recorded: Recorded, event: ev.ExecutionAssigned, found: Standing
) -> Outcome:
    if not found.run_wanted:
        logger.info("%s attempt %d: not wanted any more", event.execution_id, event.attempt)
        return Outcome(seat_lives=found.seat_lives, leftover=_leftover(host, recorded))
    taken_at = datetime.now(UTC)
    with host.spans.span("fetch"):
        order = await host.orders.fetch(recorded, event)
    host.metrics.taken(order.accepted_at, taken_at)
    if host.sandboxes is None:
        reported = await cold_run.execute(host, order, found)
    else:
        reported = await sandbox_run.execute(
            host, host.sandboxes, stock, order, found, taken_at=format_time(taken_at)
        )
    return Outcome(seat_lives=reported, leftover=_leftover(host, recorded))


async def _stop(
    host: Host, recorded: Recorded, event: ev.WorkerStopRequested, found: Standing
) -> Outcome:
    """Its queue has brought the seat here only after all its runs: it is idle."""
    if found.seat_lives:
        await host.report(recorded, event_builders.stopped(event))
        logger.info("%s stopped: %s", event.worker_id, event.reason)
    return Outcome(seat_lives=False)


def _leftover(host: Host, recorded: Recorded) -> Leftover | None:
    """The container of an assignment that is over."""
    if host.sandboxes is None:
        return Leftover(container_name(recorded))
    return host.sandboxes.forget(mark(recorded))
