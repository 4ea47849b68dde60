"""The three things a host is asked for: a seat, a run on it, and to give it up."""

import logging

import msgspec

from abaco_proto import events as ev
from abaco_proto.envelope import Recorded
from abaco_proto.errors import Undecodable
from abaco_worker import facts, standing
from abaco_worker.host import Host
from abaco_worker.run import definition_at, execute, fetch
from abaco_worker.sandbox import container_name
from abaco_worker.standing import Standing

logger = logging.getLogger(__name__)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is left when a piece of work is settled.

    ``seat_lives`` says whether the seat goes on; ``container`` (id or name) is to be removed.
    """

    seat_lives: bool
    container: str | None = None


async def perform(host: Host, recorded: Recorded, *, look: bool) -> Outcome:
    """Do what an event asks for, and report it. ``look``: somebody may have done it before.

    Raises:
        AbacoError: see :mod:`abaco_worker.disposition`.
    """
    found = await host.look(recorded) if look else standing.at_once(recorded)
    match recorded.event:
        case ev.WorkerRequested() as event:
            return await _prepare(host, recorded, event, found)
        case ev.ExecutionAssigned() as event:
            return await _run(host, recorded, event, found)
        case ev.WorkerStopRequested() as event:
            return await _stop(host, recorded, event, found)
    raise Undecodable(f"event {recorded.sequence} is no work for a host")


async def give_up(host: Host, recorded: Recorded, error: Exception) -> Outcome:
    """Say that a seat is broken, and why; what it was to run goes to another one."""
    event = recorded.event
    if not isinstance(event, ev.WorkerRequested | ev.WorkerStopRequested | ev.ExecutionAssigned):
        return Outcome(seat_lives=False)
    revision = await _revision(host, event)
    reason = str(error) or type(error).__name__
    await host.report(recorded, facts.failed(event, revision=revision, reason=reason))
    logger.warning("%s failed: %s", event.worker_id, reason)
    assigned = isinstance(event, ev.ExecutionAssigned)
    return Outcome(seat_lives=False, container=container_name(recorded) if assigned else None)


async def _prepare(
    host: Host, recorded: Recorded, event: ev.WorkerRequested, found: Standing
) -> Outcome:
    if not found.request_open:
        return Outcome(seat_lives=found.seat_lives)
    definition = (await definition_at(host, event.actor_sequence)).definition
    image = await host.images.prepare(definition.image)
    ready = facts.ready(
        event, image=definition.image, digest=image.digest, location=host.engine.location
    )
    await host.report(recorded, ready)
    logger.info("%s ready: image %s", event.worker_id, definition.image)
    return Outcome(seat_lives=True)


async def _run(
    host: Host, recorded: Recorded, event: ev.ExecutionAssigned, found: Standing
) -> Outcome:
    name = container_name(recorded)
    if not found.run_wanted:
        logger.info("%s attempt %d: not wanted any more", event.execution_id, event.attempt)
        return Outcome(seat_lives=found.seat_lives, container=name)
    reported = await execute(host, await fetch(host, recorded, event), found)
    return Outcome(seat_lives=reported, container=name)


async def _stop(
    host: Host, recorded: Recorded, event: ev.WorkerStopRequested, found: Standing
) -> Outcome:
    """Its queue has brought the seat here only after all its runs: it is idle."""
    if found.seat_lives:
        await host.report(recorded, facts.stopped(event))
        logger.info("%s stopped: %s", event.worker_id, event.reason)
    return Outcome(seat_lives=False)


async def _revision(
    host: Host, event: ev.WorkerRequested | ev.WorkerStopRequested | ev.ExecutionAssigned
) -> int:
    """Which revision of the actor a seat was running; 0 when nobody can tell."""
    if isinstance(event, ev.WorkerRequested):
        return event.revision
    if isinstance(event, ev.ExecutionAssigned):
        return getattr(await host.event_at(event.actor_sequence), "revision", 0)
    return 0
